"""Requests that wait for room in the queue instead of being refused, first come first served.

What is tokenized goes before what is not, so that no more is tokenized than there is room for::

    tokenized      r2  r1 ──> the first tries whenever there may be room ──> admitted
    not tokenized  r5  r4  r3 ──> the first, once no tokenized one waits ──> tokenized

    its deadline passes while it waits                                     DeadlineExceeded
    no room, nobody waits, and its time is too short to wait for it        EngineOverloaded, at once
    no room for MAX_WAIT_S, or too many wait already                       EngineOverloaded
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from model_runtime.errors import DeadlineExceeded, EngineOverloaded
from model_runtime.types import RequestOptions

MAX_WAIT_S = 60.0
"""Seconds that a request waits for room at most, each time that there is none."""

LEAST_WAIT_S = 1.0
"""Who has so many seconds left waits, though the queue expects no room by then: it is an estimate,
and room often comes sooner."""

MAX_WAITING = 128
"""Requests in one line, each with all its parts."""

MAX_WAITING_TOKENS = 1 << 22
"""Tokens of all that wait in one line, where more than one request does."""


class _Place:
    """Where a request stands, and whether it should try."""

    def __init__(self, options: RequestOptions, tokens: int) -> None:
        self.request: object = options.parent or self
        self.tokens = tokens
        self.may_try = asyncio.Event()


class _Places:
    """In the order in which they came.

    Attributes:
        tokens: of all of them.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._places: OrderedDict[_Place, None] = OrderedDict()
        self._parts: Counter[object] = Counter()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def first(self) -> _Place | None:
        return next(iter(self._places), None)

    def add(self, place: _Place) -> None:
        self._places[place] = None
        self._parts[place.request] += 1
        self.tokens += place.tokens

    def remove(self, place: _Place) -> None:
        del self._places[place]
        self._parts[place.request] -= 1
        if not self._parts[place.request]:
            del self._parts[place.request]
        self.tokens -= place.tokens

    def requests_beside(self, place: _Place) -> int:
        """Requests of which parts wait here, but for the one of ``place``."""
        return len(self._parts) - (place.request in self._parts)


class WaitingLine:
    """Those of one class of service. On the event loop only.

    Attributes:
        requests, tokens: that wait at this moment; each part of a larger request counts.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self._tokenized = _Places()
        self._untokenized = _Places()
        self._retry_after_s = 0.0

    def wake(self) -> None:
        """There may be room: whoever is first tries."""
        first = self._tokenized.first or self._untokenized.first
        if first is not None:
            first.may_try.set()

    @asynccontextmanager
    async def turn(
        self, attempt: Callable[[], None], options: RequestOptions, tokens: int, *, tokenized: bool
    ) -> AsyncIterator[None]:
        """Run the block once ``attempt`` is not refused, or at once for whoever does not wait.

        Where it was waited for, those behind wait until the block ends.

        Raises:
            EngineOverloaded, DeadlineExceeded: as told above.
        """
        line = self._tokenized if tokenized else self._untokenized
        left_s = math.inf if options.deadline is None else options.deadline - time.monotonic()
        may_wait = options.on_full == "wait"
        if not may_wait or not (self._tokenized.first or line.first):
            refusal = self._refused(attempt)
            if refusal is None:
                yield
                return
            if not may_wait or left_s < min(refusal.retry_after_s, LEAST_WAIT_S):
                raise refusal
        place = _Place(options, tokens)
        self._check_length(place, line)
        line.add(place)
        try:
            self.requests += 1
            self.tokens += tokens
            try:
                await self._wait(place, line, attempt, left_s)
            finally:
                self.requests -= 1
                self.tokens -= tokens
            yield
        finally:
            line.remove(place)
            self.wake()

    async def _wait(
        self, place: _Place, line: _Places, attempt: Callable[[], None], left_s: float
    ) -> None:
        try:
            async with asyncio.timeout(min(left_s, MAX_WAIT_S)):
                while (self._tokenized.first or line.first) is not place or self._refused(attempt):
                    place.may_try.clear()
                    await place.may_try.wait()
        except TimeoutError:
            if left_s <= MAX_WAIT_S:
                raise DeadlineExceeded("the request's time ran out") from None
            raise self._overloaded("there has been no room in the queue") from None

    def _refused(self, attempt: Callable[[], None]) -> EngineOverloaded | None:
        try:
            attempt()
        except EngineOverloaded as refusal:
            self._retry_after_s = refusal.retry_after_s
            return refusal
        return None

    def _check_length(self, place: _Place, line: _Places) -> None:
        # What is tokenized was let in by this already, except where nobody waited.
        ahead = (self._tokenized,) if line is self._tokenized else (self._tokenized, line)
        others = sum(one.requests_beside(place) for one in ahead)
        tokens = place.tokens + sum(one.tokens for one in ahead)
        if others >= MAX_WAITING or (others and tokens > MAX_WAITING_TOKENS):
            raise self._overloaded(f"{others} requests wait for room in the queue")

    def _overloaded(self, message: str) -> EngineOverloaded:
        return EngineOverloaded(message, self._retry_after_s)
