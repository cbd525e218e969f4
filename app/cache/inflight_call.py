"""Queries that were asked together, and how many wait for their answers.

::

    start ──> on its way ──┬── answered ──> ``answers`` is filled
                           ├── failed ────> ``answers`` stays empty
                           └── nobody waits any more: cancelled
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from model_runtime import Answer, LogprobQuery, Outcome, Priority, RequestOptions

MUCH_LARGER = 4
"""Whoever wants little does not wait for a flight so many times as large."""


class Flight:
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

    task: asyncio.Task[Outcome[tuple[Answer, ...]]]

    def __init__(
        self, wanted: Mapping[bytes, LogprobQuery], options: RequestOptions, size: int
    ) -> None:
        self.wanted = wanted
        self.answers: Mapping[bytes, Answer] = {}
        self._priority = options.priority
        self._size = size
        self._waiting = 0

    @property
    def failed(self) -> bool:
        """It raised; whoever asked should hear of it."""
        task = self.task
        return task.done() and not task.cancelled() and task.exception() is not None

    def suits(self, options: RequestOptions, size: int) -> bool:
        """Whether a request that asks ``size`` is served by it about as soon as by asking itself.

        The flight has come first, so it is due first, unless it is far larger or only bulk work.
        Asking again costs less than it seems: the runtime computes equal paths once.
        """
        urgent = options.priority is Priority.INTERACTIVE
        if urgent and self._priority is not Priority.INTERACTIVE:
            return False
        return self._size < MUCH_LARGER * size

    def start(self, call: Coroutine[Any, Any, Outcome[tuple[Answer, ...]]]) -> None:
        """Begin; to be called once."""
        self.task = asyncio.create_task(call)
        self.task.add_done_callback(_see_failure)

    def board(self) -> None:
        """Wait for it; ``leave`` has to follow."""
        self._waiting += 1

    def leave(self) -> bool:
        """Wait no more. True: nobody else does either, and it was ended before its time."""
        self._waiting -= 1
        return not self._waiting and self.task.cancel()


def _see_failure(task: asyncio.Task[Any]) -> None:
    """So that a failure which nobody waits for is not reported as forgotten."""
    if not task.cancelled():
        task.exception()
