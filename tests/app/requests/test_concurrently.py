"""Several coroutines at the same time, of which all have to succeed."""

from __future__ import annotations

import asyncio

import pytest

from app.requests.concurrently import all_of

pytestmark = pytest.mark.anyio


async def after(turns: int, result: int) -> int:
    """``result`` after so many turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


async def test_results_come_in_order() -> None:
    """Whoever is ready first."""
    assert await all_of(after(9 - n, n) for n in range(9)) == list(range(9))
    assert await all_of([]) == []


async def test_the_first_failure_ends_the_others() -> None:
    """It is raised as it is, once the others have ended."""
    ended: list[str] = []

    async def waits() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cancelled")
        return 0

    async def fails() -> int:
        await asyncio.sleep(0)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await all_of([waits(), fails(), waits()])
    assert ended == ["cancelled"] * 2


async def test_a_cancelled_caller_cancels_all() -> None:
    """And is cancelled itself."""
    ended: list[str] = []

    async def waits() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        return 0

    caller = asyncio.create_task(all_of([waits(), waits()]))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == ["cancelled"] * 2
