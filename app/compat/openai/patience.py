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
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from app.compat.openai.waiting_line import Place, WaitingLine
from app.deadline import Deadline
from model_runtime import EngineOverloaded

T = TypeVar("T")

PATIENCE_S: Final = 60.0
"""Seconds that a request waits for room at most, each time that there is none."""

SHORTEST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0
"""Between two attempts: room may come sooner than it looked."""

ADMITTED_S: Final = 0.1
"""A question that was not turned away for so many seconds was let in: the next one may try."""


class Patience:
    """That of one request.

    Args:
        deadline: when its time is over.
        line: where it waits, in one place at a time, whatever it asks.

    Attributes:
        deadline: as given.
        tokens: that the request holds while it waits.
    """

    def __init__(self, deadline: Deadline, line: WaitingLine) -> None:
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
            wait_until = time.perf_counter() + PATIENCE_S
            with self._line.place(self.tokens) as place:
                return await self._ask_in_turn(question, place, wait_until)

    async def _ask_in_turn(
        self, question: Callable[[], Awaitable[T]], place: Place, wait_until: float
    ) -> T:
        while True:
            await self._turn(place, wait_until)
            loop = asyncio.get_running_loop()
            admitted = loop.call_later(ADMITTED_S, self._line.step_aside, place)
            try:
                return await question()
            except EngineOverloaded as error:
                self._line.step_back(place)
                self._line.retry_after_s = error.retry_after_s
                wait_s = min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, error.retry_after_s))
                if not self._may_wait(wait_s, wait_until):
                    raise
            finally:
                admitted.cancel()
            await asyncio.sleep(wait_s)

    async def _turn(self, place: Place, wait_until: float) -> None:
        try:
            async with asyncio.timeout(wait_until - time.perf_counter()):
                await self.deadline.in_time(place.turn.wait())
        except TimeoutError:
            raise self._line.overloaded("there has been no room in the queue") from None

    def _may_wait(self, wait_s: float, wait_until: float) -> bool:
        left_s = self.deadline.left_s
        in_time = left_s is None or wait_s < left_s
        return in_time and time.perf_counter() + wait_s <= wait_until
