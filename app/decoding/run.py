"""Searches of one request, run at the same time."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from app.decoding.plan import DecodePlan
from model_runtime import (
    ChainruleError,
    DeadlineExceeded,
    DecodingResult,
    Engine,
    NothingFollows,
    RequestOptions,
    RequestOutput,
)

T = TypeVar("T")


async def run_concurrently(
    engine: Engine, plan: DecodePlan, options: RequestOptions
) -> list[RequestOutput[DecodingResult] | None]:
    """Run a plan's searches; the first failure ends the others.

    To run out of time, or to find nothing, is a failure only where every search did: None
    stands for the one, an empty result for the other.

    Raises:
        ChainruleError: what a search failed with.
    """
    tasks = [asyncio.create_task(engine.decode(search, options)) for search in plan.searches]
    try:
        ends = await asyncio.gather(*map(_end_of, tasks))
    finally:
        for task in tasks:
            task.cancel()
    failures = [end for end in ends if isinstance(end, ChainruleError)]
    if len(failures) == len(ends):
        raise failures[0]
    return [_shown(end) for end in ends]


async def _end_of(task: asyncio.Task[T]) -> T | DeadlineExceeded | NothingFollows:
    try:
        return await task
    except (DeadlineExceeded, NothingFollows) as error:
        return error


def _shown(
    end: RequestOutput[DecodingResult] | DeadlineExceeded | NothingFollows,
) -> RequestOutput[DecodingResult] | None:
    if isinstance(end, NothingFollows):
        return RequestOutput(DecodingResult(()), 0, 0, 0, 0, 0.0, 0.0)
    return None if isinstance(end, DeadlineExceeded) else end
