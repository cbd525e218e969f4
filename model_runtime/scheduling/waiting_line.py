"""Requests that wait for room in the queue instead of being refused, first come first served.

What is tokenized goes before what is not, so that no more is tokenized than there is room for::

    tokenized      r2  r1 ──> the first tries whenever there may be room ──> admitted
    not tokenized  r5  r4  r3 ──> the first, once no tokenized one waits ──> tokenized

    its deadline passes while it waits                                     DeadlineExceeded
    no room, and it has less time than is worth waiting for                EngineOverloaded, at once
    no room for MAX_WAIT_S, or too many wait already                       EngineOverloaded
"""

from __future__ import annotations

import asyncio
import math
import time
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


class WaitingLine:
    """Those of one class of service. On the event loop only."""

    def __init__(self) -> None:
        self._tokenized: list[_Place] = []
        self._untokenized: list[_Place] = []
        self._retry_after_s = 0.0

    def wake(self) -> None:
        """There may be room: whoever is first tries."""
        for place in (self._tokenized or self._untokenized)[:1]:
            place.may_try.set()

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
        if not may_wait or not (self._tokenized or line):
            refusal = self._refused(attempt)
            if refusal is None:
                yield
                return
            if not may_wait or left_s < min(refusal.retry_after_s, LEAST_WAIT_S):
                raise refusal
        place = _Place(options, tokens)
        self._check_length(place, line)
        line.append(place)
        try:
            await self._wait(place, line, attempt, left_s)
            yield
        finally:
            line.remove(place)
            self.wake()

    async def _wait(
        self, place: _Place, line: list[_Place], attempt: Callable[[], None], left_s: float
    ) -> None:
        try:
            async with asyncio.timeout(min(left_s, MAX_WAIT_S)):
                while (self._tokenized or line)[0] is not place or self._refused(attempt):
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

    def _check_length(self, place: _Place, line: list[_Place]) -> None:
        # What is tokenized was let in by this already, except where nobody waited.
        places = self._tokenized if line is self._tokenized else self._tokenized + line
        others = {other.request for other in places} - {place.request}
        tokens = place.tokens + sum(other.tokens for other in places)
        if len(others) >= MAX_WAITING or (others and tokens > MAX_WAITING_TOKENS):
            raise self._overloaded(f"{len(others)} requests wait for room in the queue")

    def _overloaded(self, message: str) -> EngineOverloaded:
        return EngineOverloaded(message, self._retry_after_s)
