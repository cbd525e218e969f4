"""Full collections of garbage: none beside a large request, and as usual afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from app.http.full_gc import DEFERRED_THRESHOLD, FullGcDeferral
from app.http.json_body import LARGE_BODY
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

OBJECTS = 300_000


@contextmanager
def counted() -> Iterator[list[int]]:
    """Yields a list with an entry for each full collection from now on."""
    found: list[int] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "start" and info["generation"] == 2:
            found.append(info["generation"])

    gc.callbacks.append(note)
    try:
        yield found
    finally:
        gc.callbacks.remove(note)


@pytest.mark.parametrize("put_off", [True, False])
def test_growth_is_not_gone_through_while_it_lasts(put_off: bool) -> None:
    """Objects that come and stay cause full collections, but for those that are put off."""
    gc.collect()
    gc.freeze()
    gc.collect()  # a full collection waits for a quarter more objects than the last one has left
    try:
        with counted() as found, FullGcDeferral().deferred() if put_off else nullcontext():
            held: list[list[int]] = [[] for _ in range(OBJECTS)]
    finally:
        gc.unfreeze()
    assert len(held) == OBJECTS
    assert bool(found) is not put_off


def test_the_last_to_leave_restores_the_thresholds() -> None:
    """Those that were set before the first one came."""
    usual, collections = gc.get_threshold(), FullGcDeferral()
    with collections.deferred():
        with collections.deferred():
            assert gc.get_threshold() == (*usual[:2], DEFERRED_THRESHOLD)
        assert gc.get_threshold() == (*usual[:2], DEFERRED_THRESHOLD)
    assert gc.get_threshold() == usual


class WatchedEngine(FakeEngine):
    """Remembers the thresholds under which it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.thresholds: list[int] = []

    async def score(self, *arguments: Any) -> Any:
        self.thresholds.append(gc.get_threshold()[2])
        return await super().score(*arguments)


@pytest.mark.anyio
async def test_a_large_body_puts_them_off() -> None:
    """While a large request is in hand, and no longer, and no small one."""
    usual, engine = gc.get_threshold(), WatchedEngine()
    async with client_of(shell_app(engine)) as client:
        for candidates in ([" yes"], [" yes"] * (LARGE_BODY // 6)):
            body = {"context": "it is", "candidates": candidates, "compact": True}
            assert (await client.post("/v1/score", json=body)).status_code == 200
            assert gc.get_threshold() == usual
        refused = await client.post("/v1/score", json={"context": "a" * LARGE_BODY, "b": 1})
    assert refused.status_code == 422
    assert gc.get_threshold() == usual
    assert engine.thresholds == [usual[2], DEFERRED_THRESHOLD]
