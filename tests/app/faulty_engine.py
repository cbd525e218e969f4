"""A real engine around a model made of arithmetic, which goes wrong on some token paths.

What a path does to the forward that holds it is said by its first token. One text hangs when it is
tokenized.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from model_runtime import Engine, EngineConfig, OutOfMemory
from model_runtime.batching.batch import Batch, QueryProgress
from tests.app.fake_engine import FakeEngine, ToyTokenizer
from tests.model_runtime.fake_model import FakeModel, paths

HANGS: Final = 101
DIES: Final = 102
FAILS: Final = 103
DOES_NOT_FIT: Final = 104
HELD: Final = 105
WAITS_FOR_MEMORY: Final = 106
WARM_UP: Final = 0


@dataclass
class Cache:
    """A gauge that never moves."""

    capacity: int = 1000
    used: int = 0
    pinned: int = 0
    evicted: int = 0
    row_bytes: int = 0


STUCK: Final = "stuck"


class StuckTokenizer(ToyTokenizer):
    """Never comes back from one text."""

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        if text == STUCK:
            threading.Event().wait()
        return super().encode(text, parse_special=parse_special)


class FaultyModel(FakeModel):
    """Has no memory the first three times that a path waits for it."""

    refusals = 3

    def plan(self, work: Sequence[QueryProgress], budget: int) -> Batch:
        if self.refusals and any(item.query.tokens[0] == WAITS_FOR_MEMORY for item in work):
            self.refusals -= 1
            raise OutOfMemory("no room", retry_after_s=1.0)
        return super().plan(work, budget)


def warm_up(start: str) -> None:
    """The first forward."""
    if start == "stuck":
        threading.Event().wait()
    if start == "unfit":
        raise ValueError("mat1 and mat2\nshapes cannot be multiplied")


def go_wrong(faults: set[int], release: threading.Event) -> None:
    """Any other forward, of paths that begin with these tokens."""
    if HANGS in faults:
        threading.Event().wait()
    if DIES in faults:
        raise SystemExit("out of luck")
    if FAILS in faults:
        raise ValueError("poison at /some/path")
    if DOES_NOT_FIT in faults:
        raise OutOfMemory("no room")
    if HELD in faults:
        if not release.wait(20):
            raise TimeoutError("the test forgot to let this forward through")
        release.clear()


def faulty_engine(
    config: EngineConfig, release: threading.Event, *, start: str = "faulty"
) -> Engine:
    """An engine that is not started yet; ``release`` ends the forward that is held.

    The first forward hangs at the start ``stuck`` and raises at ``unfit``.
    """

    def on_run(batch: Batch) -> None:
        faults = {path[0] for path in paths(batch)}
        if WARM_UP in faults:
            warm_up(start)
        else:
            go_wrong(faults, release)

    fake: Any = FakeEngine(tokenizer=StuckTokenizer())
    return Engine(config, fake.info, fake.tokenizer, FaultyModel(on_run).forward, Cache())
