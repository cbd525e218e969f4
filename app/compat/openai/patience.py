"""Waiting for room in the queue, within the time that a request has.

Evaluations send thousands of prompts at once, try each a few times and then give up for good,
whatever ``Retry-After`` says. So their requests wait here instead of being turned away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from model_runtime import DeadlineExceeded, EngineOverloaded

T = TypeVar("T")

PATIENCE_S: Final = 60.0
"""Seconds that a request without a deadline waits for room at most."""

SHORTEST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0
"""Between two attempts: room may come sooner than it looked."""


class Patience:
    """Begins when it is made.

    Args:
        timeout_ms: what the request may take altogether; None for no limit.
    """

    def __init__(self, timeout_ms: int | None) -> None:
        self._timeout_ms = timeout_ms
        self._began = time.perf_counter()

    @property
    def left_ms(self) -> int | None:
        """Milliseconds until the deadline, at least 1; None where there is none.

        Raises:
            DeadlineExceeded: it has passed.
        """
        if self._timeout_ms is None:
            return None
        left_ms = self._timeout_ms - 1000 * self._waited_s
        if left_ms <= 0:
            raise DeadlineExceeded("the request's time ran out")
        return max(1, int(left_ms))

    async def ask(self, question: Callable[[int | None], Awaitable[T]]) -> T:
        """The answer to ``question``, which is told the milliseconds left at each attempt.

        Raises:
            EngineOverloaded: there has been no room all the time.
            DeadlineExceeded: the deadline has passed.
        """
        while True:
            try:
                return await question(self.left_ms)
            except EngineOverloaded as error:
                wait_s = min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, error.retry_after_s))
                if self._waited_s + wait_s > self._longest_s:
                    raise
            await asyncio.sleep(wait_s)

    @property
    def _waited_s(self) -> float:
        return time.perf_counter() - self._began

    @property
    def _longest_s(self) -> float:
        return PATIENCE_S if self._timeout_ms is None else self._timeout_ms / 1000
