"""Waiting for room in the queue, within the time that a request has.

Evaluations send thousands of prompts at once, try each a few times and then give up for good,
whatever ``Retry-After`` says. So their requests wait here instead of being turned away::

    the request's time ran out while it waited                            504
    no room whenever it asked, and its time ends before it may ask again  429, at once
    no room for PATIENCE_S, or too many wait already                      429
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from app.requests.deadline import Deadline
from model_runtime import EngineOverloaded

T = TypeVar("T")

MAX_WAIT_S: Final = 60.0
"""Seconds that a request waits for room at most, each time that there is none."""

SHORTEST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0
"""Between two attempts: room may come sooner than it looked."""

ADMITTED_S: Final = 0.1
"""A question that was not turned away for so many seconds was let in: the next one may try."""


class AdmissionRetry:
    """That of one request.

    Args:
        deadline: when its time is over.
        line: where it waits, in one place at a time, whatever it asks.

    Attributes:
        deadline: as given.
        tokens: that the request holds while it waits.
    """

    def __init__(self, deadline: Deadline, line: WaitQueue) -> None:
        self.deadline = deadline
        self.tokens = 0
        self._line = line
        self._alone = asyncio.Lock()

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer to ``question``, which is put again until it is not turned away.

        Where others wait already it is put when it is the request's turn.

        Raises:
            EngineOverloaded: there was no room whenever it asked, or too many wait for it.
            DeadlineExceeded: the deadline has passed.
        """
        if not self._line:
            try:
                return await question()
            except EngineOverloaded as error:
                self._line.retry_after_s = error.retry_after_s
        async with self._alone:
            wait_until = time.perf_counter() + MAX_WAIT_S
            with self._line.place(self.tokens) as place:
                return await self._ask_in_turn(question, place, wait_until)

    async def _ask_in_turn(
        self, question: Callable[[], Awaitable[T]], place: Ticket, wait_until: float
    ) -> T:
        while True:
            await self._turn(place, wait_until)
            loop = asyncio.get_running_loop()
            admitted = loop.call_later(ADMITTED_S, self._line.release, place)
            try:
                return await question()
            except EngineOverloaded as error:
                self._line.requeue(place)
                self._line.retry_after_s = error.retry_after_s
                wait_s = min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, error.retry_after_s))
                if not self._may_wait(wait_s, wait_until):
                    raise
            finally:
                admitted.cancel()
            await asyncio.sleep(wait_s)

    async def _turn(self, place: Ticket, wait_until: float) -> None:
        try:
            async with asyncio.timeout(wait_until - time.perf_counter()):
                await self.deadline.run_before(place.turn.wait())
        except TimeoutError:
            raise self._line.overloaded("there has been no room in the queue") from None

    def _may_wait(self, wait_s: float, wait_until: float) -> bool:
        left_s = self.deadline.left_s
        in_time = left_s is None or wait_s < left_s
        return in_time and time.perf_counter() + wait_s <= wait_until


MAX_WAITING: Final = 128
"""Places of one line: each is held by a request whose body is kept meanwhile."""

MAX_WAITING_TOKENS: Final = 1 << 22
"""Prompt tokens of all that wait in one line, where more than one does."""


class Ticket:
    """Where somebody stands in a line.

    Args:
        tokens: held by the request.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.turn = asyncio.Event()


class WaitQueue:
    """Only the first of the line tries to get in; so nobody overtakes, and waiting is cheap.

    Whoever leaves, for whatever reason, makes way for the next one. Lives on the event loop.

    Attributes:
        retry_after_s: what the queue said when it last turned somebody away.
    """

    def __init__(self) -> None:
        self.retry_after_s = 1.0
        self._places: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def place(self, tokens: int = 0) -> Iterator[Ticket]:
        """A place at the end of the line while the block runs.

        Raises:
            EngineOverloaded: the line is too long already.
        """
        held = sum(place.tokens for place in self._places)
        too_many = self._places and held + tokens > MAX_WAITING_TOKENS
        if too_many or len(self._places) >= MAX_WAITING:
            raise self.overloaded(f"{len(self._places)} requests wait for room in the queue")
        place = Ticket(tokens)
        self._places.append(place)
        self._call_first()
        try:
            yield place
        finally:
            self.release(place)

    def release(self, place: Ticket) -> None:
        """It seems to be in: the next one may try. Doing so again changes nothing."""
        if place in self._places:
            self._places.remove(place)
        place.turn.clear()
        self._call_first()

    def requeue(self, place: Ticket) -> None:
        """It was turned away after all, and is the first again."""
        if place not in self._places:
            if self._places:
                self._places[0].turn.clear()
            self._places.appendleft(place)
        self._call_first()

    def overloaded(self, message: str) -> EngineOverloaded:
        """What is said to whoever cannot wait any longer."""
        return EngineOverloaded(message, retry_after_s=self.retry_after_s)

    def _call_first(self) -> None:
        if self._places:
            self._places[0].turn.set()


class WaitingLines:
    """One line for each class of service: one may find room where the other does not."""

    def __init__(self) -> None:
        self._lines = {"interactive": WaitQueue(), "bulk": WaitQueue()}

    def of(self, priority: str) -> WaitQueue:
        """The line of a class."""
        return self._lines[priority]
