"""Threads for what takes too long for the event loop: few, and never more than that.

A thread cannot be stopped from outside. Whoever waits for one may leave, because the time is over
or the client is gone; the thread is taken until its work ends all the same. So work that takes
long asks between its pieces whether anybody still wants it::

    waiter    run ────────────────x leaves
    thread        piece | piece | piece | check_wanted raises; free for the next

One thread is never taken by bulk work or by work that takes long, so that short interactive work
does not wait for its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from model_runtime import Priority

T = TypeVar("T")


class Abandoned(Exception):
    """Ends work that nobody waits for any more; so nobody hears of it."""


class _Call:
    """One piece of work on a thread.

    Attributes:
        abandoned: the event loop sets it, once; the thread reads it.
    """

    abandoned = False


_call_var: ContextVar[_Call | None] = ContextVar("call", default=None)


def check_wanted() -> None:
    """Raise ``Abandoned`` where nobody waits any more for what this thread does."""
    call = _call_var.get()
    if call is not None and call.abandoned:
        raise Abandoned


class WorkerThreads:
    """So many threads at most.

    Args:
        count: at least two: bulk and long work may take all but one.
    """

    def __init__(self, count: int) -> None:
        if count < 2:
            raise ValueError(f"{count} threads leave none for interactive work")
        self._pool = ThreadPoolExecutor(count, "worker")
        self._free_for_long = asyncio.Semaphore(count - 1)
        self._bulk_turn = asyncio.Semaphore(1)
        self._running: set[_Call] = set()

    @property
    def busy(self) -> bool:
        """Whether a thread works, for somebody or for nobody any more."""
        return bool(self._running)

    async def run(
        self, priority: Priority, work: Callable[..., T], *args: Any, takes_long: bool = False
    ) -> T:
        """What ``work`` returns. Cancelled before its turn it never begins.

        Args:
            priority: of the request.
            work: what to do.
            args: of the work.
            takes_long: whether it may take seconds.
        """
        call = _Call()
        context = copy_context()
        context.run(_call_var.set, call)
        in_context = partial(context.run, self._do, call, work, *args)
        if priority is Priority.BULK:
            # One at a time stands in line with what is interactive and takes long.
            async with self._bulk_turn:
                running = await self._submit_long(in_context)
        elif takes_long:
            running = await self._submit_long(in_context)
        else:
            running = self._pool.submit(in_context)
        try:
            return await asyncio.wrap_future(running)
        finally:
            call.abandoned = True

    def _do(self, call: _Call, work: Callable[..., T], *args: Any) -> T:
        self._running.add(call)
        try:
            return work(*args)
        finally:
            self._running.discard(call)

    async def _submit_long(self, work: Callable[[], T]) -> Future[T]:
        await self._free_for_long.acquire()
        running = self._pool.submit(work)
        loop = asyncio.get_running_loop()
        running.add_done_callback(partial(on_loop, loop, self._free_for_long.release))
        return running


def on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object], _done: object) -> None:
    """Call it on the event loop, when a thread is done; a callback of its future."""
    # The loop may be gone where the process ends while a thread works for nobody.
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
