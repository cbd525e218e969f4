"""Many pieces of work with N of them in flight, their results in the order of the input.

A slow one holds up the results behind it, but for a while not the work: up to four times N
pieces are read ahead. The input is read only as fast as results are taken, so it may be endless.

For threads and for an event loop: this is all that the two clients do differently.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
)
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Items: TypeAlias = Iterable[T]
Results: TypeAlias = Generator[R, None, None]
AsyncItems: TypeAlias = Iterable[T] | AsyncIterable[T]
AsyncResults: TypeAlias = AsyncGenerator[R, None]

AHEAD = 4
"""Pieces that are read ahead, for each that is in flight."""

_cancelled: ContextVar[threading.Event | None] = ContextVar("_cancelled", default=None)
"""Set once nobody wants the results of this thread's work any more; None outside of a pool."""


def ordered_map(items: Items[T], work: Callable[[T], R], concurrency: int) -> Results[R]:
    """``work`` of each item, on threads. What it raises is raised in its place, and ends it all.

    When it ends early, what has not begun is dropped, and what is in flight is waited for, but
    for its ``sleep``.

    Args:
        items: read in the caller's thread, when a result is asked for.
        work: done by ``concurrency`` threads.
        concurrency: at least 1.
    """
    outer = _cancelled.get()
    cancelled = outer or threading.Event()
    pool = ThreadPoolExecutor(check_concurrency(concurrency), "chainrule")
    context = copy_context()
    context.run(_cancelled.set, cancelled)
    window: deque[Future[R]] = deque()
    try:
        for item in items:
            window.append(pool.submit(context.copy().run, work, item))
            while window and (window[0].done() or len(window) >= AHEAD * concurrency):
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        # What waits goes first: a thread that is told to stop would begin it.
        pool.shutdown(wait=False, cancel_futures=True)
        if outer is None:
            cancelled.set()
        pool.shutdown(wait=True)


def sleep(seconds: float) -> None:
    """Wait. Raises ``CancelledError`` once the ``ordered_map`` that this is work of has ended."""
    if (_cancelled.get() or threading.Event()).wait(seconds):
        raise CancelledError


sleep_async = asyncio.sleep


async def ordered_map_async(
    items: AsyncItems[T], work: Callable[[T], Awaitable[R]], concurrency: int
) -> AsyncResults[R]:
    """The same with tasks. When it ends early, what is in flight is cancelled."""
    gate = asyncio.Semaphore(check_concurrency(concurrency))

    async def do(item: T) -> R:
        async with gate:
            return await work(item)

    source = _each(items)
    window: deque[asyncio.Task[R]] = deque()
    pull: asyncio.Task[tuple[T] | None] | None = None
    is_over = False
    try:
        while True:
            if pull is None and not is_over and len(window) < AHEAD * concurrency:
                pull = asyncio.create_task(_next(source))
            waiting = [task for task in (pull, next(iter(window), None)) if task is not None]
            if not waiting:
                return
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if pull is not None and pull.done():
                item, pull = pull.result(), None
                is_over = item is None
                if item is not None:
                    window.append(asyncio.create_task(do(item[0])))
            while window and window[0].done():
                yield window.popleft().result()
    finally:
        await _end([task for task in (pull, *window) if task is not None])
        await source.aclose()


def check_concurrency(concurrency: int) -> int:
    """The number itself; ``ValueError`` for one below 1."""
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")
    return concurrency


async def _each(items: AsyncItems[T]) -> AsyncResults[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item


async def _next(source: AsyncIterator[T]) -> tuple[T] | None:
    """The next item; None where there is no more."""
    try:
        return (await anext(source),)
    except StopAsyncIteration:
        return None


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    ended = list(tasks)
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)
