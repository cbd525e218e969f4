"""Calls of the engine that are on their way, and which of them a request may join."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from model_runtime import LogprobQuery, Priority, QueryResult, RequestOptions, RequestOutput

Answers = tuple[QueryResult, ...]
Wanted = Mapping[bytes, LogprobQuery]

MAX_SIZE_RATIO = 4
"""A small request does not wait for a call that is so many times as large."""

MAX_LISTED_QUERIES = 1_000
"""Queries of a call that are listed one by one. The others are few and known as they are: to list
a hundred thousand digests, and to strike them out again, takes the event loop too long."""


class InflightCall:
    """One call of the engine.

    Args:
        wanted: what is asked, by digest.
        options: those of the request that asks.
        size: how much it asks, in tokens or anything like them.

    Attributes:
        wanted, options: as given.
        answers: by digest, once they are there.
        waiting: requests that wait for it.
        task: the call.
    """

    task: asyncio.Task[RequestOutput[Answers]]

    def __init__(self, wanted: Wanted, options: RequestOptions, size: int) -> None:
        self.wanted = wanted
        self.options = options
        self.answers: Mapping[bytes, QueryResult] = {}
        self.waiting = 0
        self._size = size

    def can_share(self, options: RequestOptions, size: int) -> bool:
        """Whether a request that asks ``size`` is served by it about as soon as by its own call.

        This call has come first, so it is due first, unless it is far larger, only bulk work, or
        waits for room where the other would be refused. Asking again costs less than it seems: the
        runtime computes equal paths once.
        """
        mine = self.options
        less_urgent = options.priority is Priority.INTERACTIVE and mine.priority is Priority.BULK
        waits_longer = options.on_full == "refuse" and mine.on_full == "wait"
        return not less_urgent and not waits_longer and self._size < MAX_SIZE_RATIO * size


class InflightCalls:
    """The running calls, found by what they ask. Lives on the event loop."""

    def __init__(self) -> None:
        self._large: list[InflightCall] = []
        self._by_digest: dict[bytes, InflightCall] = {}

    def __len__(self) -> int:
        """Queries that are being asked."""
        return len(self._by_digest) + sum(len(call.wanted) for call in self._large)

    def add(self, call: InflightCall, run: Coroutine[Any, Any, RequestOutput[Answers]]) -> None:
        """Begin a call; others may join it from now on."""
        call.task = asyncio.create_task(run)
        # So that a failure which nobody waits for is not reported as forgotten.
        call.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        if len(call.wanted) > MAX_LISTED_QUERIES:
            self._large.append(call)
        else:
            self._by_digest.update(dict.fromkeys(call.wanted, call))

    def remove(self, call: InflightCall) -> None:
        """Nobody joins it any more; whoever waits goes on waiting."""
        if len(call.wanted) > MAX_LISTED_QUERIES:
            self._large = [other for other in self._large if other is not call]
            return
        for digest in call.wanted:
            if self._by_digest.get(digest) is call:
                del self._by_digest[digest]

    def sharing(self, wanted: Wanted, options: RequestOptions, size: int) -> list[InflightCall]:
        """Those that such a request may join; of the large ones also who asks nothing of it."""
        # The intersection goes through the smaller one, in C.
        small = {self._by_digest[digest] for digest in self._by_digest.keys() & wanted.keys()}
        return [call for call in (*small, *self._large) if call.can_share(options, size)]
