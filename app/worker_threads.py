"""Threads for what takes too long for the event loop: few, and never more than that.

A thread cannot be stopped from outside. Whoever waits for one may leave, because the time is over
or the client is gone; the thread is taken until its work ends all the same. So work that takes
long asks between its pieces whether anybody still wants it::

    waiter    run ────────────────x leaves
    thread        piece | piece | piece | check_wanted raises; free for the next
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

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
        count: at least one.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "worker")

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """What ``work`` returns. Cancelled before its turn it never begins."""
        call = _Call()
        context = copy_context()
        context.run(_call_var.set, call)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, partial(context.run, work, *args))
        finally:
            call.abandoned = True
