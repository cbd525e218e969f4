"""A few threads for one kind of work, whose callers wait for their turn on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from app.requests.worker_threads import on_loop

T = TypeVar("T")


class BoundedThreads:
    """So many threads at most.

    Args:
        count: pieces of work that run at once.
        name: of the threads, with a number behind it.
    """

    def __init__(self, count: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(count, name)
        self._free = asyncio.Semaphore(count)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """What ``work`` returns or raises.

        A caller that is cancelled while it waits for its turn takes its arguments away with it.
        Where the thread has begun, the turn ends with the thread.
        """
        await self._free.acquire()
        running = self._threads.submit(work, *args)
        result = asyncio.wrap_future(running)
        running.add_done_callback(partial(on_loop, result.get_loop(), self._free.release))
        return await result
