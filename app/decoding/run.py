"""Searches of one request, run at the same time."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from app.decoding.plan import DecodePlan
from app.requests.concurrently import all_of
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
    ends = await all_of(_end_of(engine.decode(search, options)) for search in plan.searches)
    failures = [end for end in ends if isinstance(end, ChainruleError)]
    if len(failures) == len(ends):
        raise failures[0]
    return [_shown(end) for end in ends]


async def _end_of(search: Awaitable[T]) -> T | DeadlineExceeded | NothingFollows:
    try:
        return await search
    except (DeadlineExceeded, NothingFollows) as error:
        return error


def _shown(
    end: RequestOutput[DecodingResult] | DeadlineExceeded | NothingFollows,
) -> RequestOutput[DecodingResult] | None:
    if isinstance(end, NothingFollows):
        return RequestOutput(DecodingResult(()), 0, 0, 0.0, 0.0)
    return None if isinstance(end, DeadlineExceeded) else end
