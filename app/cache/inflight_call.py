"""One call of the engine that several requests may wait for.

::

    start ──> running ─────┬── answered ──> ``answers`` is filled
                           ├── failed ────> ``answers`` stays empty
                           └── nobody waits any more: cancelled
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from model_runtime import LogprobQuery, Priority, QueryResult, RequestOptions, RequestOutput

MAX_SIZE_RATIO = 4
"""A small request does not wait for a call that is so many times as large."""


class InflightCall:
    """One call of the engine, in a task of its own. Lives on the event loop.

    Args:
        wanted: what is asked, by digest.
        options: those of the request that asks.
        size: how much it asks, in tokens or anything like them.

    Attributes:
        wanted: as given.
        answers: by digest, once they are there.
        task: the call.
    """

    task: asyncio.Task[RequestOutput[tuple[QueryResult, ...]]]

    def __init__(
        self, wanted: Mapping[bytes, LogprobQuery], options: RequestOptions, size: int
    ) -> None:
        self.wanted = wanted
        self.answers: Mapping[bytes, QueryResult] = {}
        self._options = options
        self._size = size
        self._waiting = 0

    @property
    def failed(self) -> bool:
        """It raised; whoever asked should hear of it."""
        task = self.task
        return task.done() and not task.cancelled() and task.exception() is not None

    def can_share(self, options: RequestOptions, size: int) -> bool:
        """Whether a request that asks ``size`` is served by it about as soon as by its own call.

        This call has come first, so it is due first, unless it is far larger, only bulk work, or
        waits for room where the other would be refused.
        Asking again costs less than it seems: the runtime computes equal paths once.
        """
        urgent = options.priority is Priority.INTERACTIVE
        if urgent and self._options.priority is not Priority.INTERACTIVE:
            return False
        if options.on_full == "refuse" and self._options.on_full == "wait":
            return False
        return self._size < MAX_SIZE_RATIO * size

    def start(self, call: Coroutine[Any, Any, RequestOutput[tuple[QueryResult, ...]]]) -> None:
        """Begin; to be called once."""
        self.task = asyncio.create_task(call)
        self.task.add_done_callback(_see_failure)

    def add_waiter(self) -> None:
        """Wait for it; ``remove_waiter`` has to follow."""
        self._waiting += 1

    def remove_waiter(self) -> bool:
        """Wait no more. True: nobody else does either, and it was ended before its time."""
        self._waiting -= 1
        return not self._waiting and self.task.cancel()


def _see_failure(task: asyncio.Task[Any]) -> None:
    """So that a failure which nobody waits for is not reported as forgotten."""
    if not task.cancelled():
        task.exception()
