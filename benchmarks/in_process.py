"""Our side where there is no HTTP: the engine in this process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

from benchmarks.workloads import ALIAS, Group
from model_runtime import (
    DecodingResult,
    Engine,
    EngineConfig,
    LogprobQuery,
    LogprobResult,
    QueryResult,
    RequestOptions,
    RequestOutput,
    SearchStrategy,
    total,
)

T = TypeVar("T")

DEFAULTS: dict[str, Any] = {"model": ALIAS, "device": "cpu", "dtype": "float32"}
"""What is measured unless a benchmark names something else."""


class InProcess:
    """A started engine, and the loop that it lives on.

    Args:
        settings: of ``EngineConfig``, over ``DEFAULTS``.
    """

    def __init__(self, **settings: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.engine = Engine.load(EngineConfig(**DEFAULTS | settings))
        self.wait(self.engine.start())
        self._salts = itertools.count()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns."""
        return self.loop.run_until_complete(work)

    def fresh_salt(self) -> str:
        """A salt that nothing is cached under."""
        return f"run-{next(self._salts)}"

    def score(self, queries: Sequence[LogprobQuery]) -> tuple[list[LogprobResult], int]:
        """The answers, and how many tokens were computed for them."""
        outcome = self.wait(self.engine.score(queries))
        return results_of(outcome.value), outcome.computed_tokens

    def sums(self, groups: Sequence[Group], salt: str | None = None) -> list[float]:
        """The sum of every candidate; from a cold cache unless a salt is given."""
        salt = self.fresh_salt() if salt is None else salt
        answers, _ = self.score([query for group in groups for query in group.queries(salt)])
        return [total(answer.logprobs) for answer in answers]

    def decode(
        self, searches: Sequence[SearchStrategy[DecodingResult]], salt: str = ""
    ) -> list[RequestOutput[DecodingResult]]:
        """Every search's outcome; all are submitted at once, a request each."""
        options = RequestOptions(cache_salt=salt)

        async def run() -> list[RequestOutput[DecodingResult]]:
            return await asyncio.gather(*(self.engine.decode(s, options) for s in searches))

        return self.wait(run())

    def __enter__(self) -> InProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wait(self.engine.stop(1.0))
        self.loop.close()


def results_of(answers: Sequence[QueryResult]) -> list[LogprobResult]:
    """The answers where all are results; raises the first error among them."""
    results = []
    for answer in answers:
        if not isinstance(answer, LogprobResult):
            raise answer
        results.append(answer)
    return results
