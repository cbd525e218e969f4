"""When a request's time is over: one moment for all that is asked for it.

::

    headers arrive      body read      tokenized      asked      the model is done      written
    |-------------------------------- timeout_ms -----------------------------------------> 504

It is fixed when the request arrives and handed on as it is. What makes several requests of one
(an audit, completions of many prompts) hands the same one to each of them.
Only a search that can tell what it has found when its time runs out is answered later, by what
it takes to tell that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Self, TypeVar

from model_runtime import DeadlineExceeded

T = TypeVar("T")


def now() -> float:
    """Seconds of the clock that deadlines are moments of, ``time.monotonic``."""
    return time.monotonic()


class Deadline:
    """A moment, of which everybody can ask how far it is.

    Args:
        at: seconds of ``time.monotonic``; None for no end.
    """

    def __init__(self, at: float | None) -> None:
        self._at = at

    @classmethod
    def after(cls, timeout_ms: int | None, arrived: float | None = None) -> Self:
        """So many milliseconds after ``arrived``, in seconds of ``time.monotonic``; or from now."""
        if timeout_ms is None:
            return cls(None)
        return cls((now() if arrived is None else arrived) + timeout_ms / 1000)

    @classmethod
    def within(cls, seconds: float | None) -> Self:
        """So many seconds from now; None for no end."""
        return cls(None if seconds is None else now() + seconds)

    @property
    def at(self) -> float | None:
        """As given."""
        return self._at

    @property
    def left_s(self) -> float | None:
        """Seconds that are left, below 0 when it has passed; None where there is no end."""
        return None if self._at is None else self._at - now()

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        left_s = self.left_s
        return left_s is not None and left_s <= 0

    def halfway(self) -> Deadline:
        """The one after half the time that is left."""
        left_s = self.left_s
        return self if left_s is None else Deadline.within(left_s / 2)

    def check(self) -> None:
        """Raise ``DeadlineExceeded`` when it has passed."""
        if self.passed:
            raise DeadlineExceeded("the request's time ran out")

    async def run_before(self, work: Awaitable[T]) -> T:
        """What ``work`` returns; it is cancelled when the time is over.

        Raises:
            DeadlineExceeded: the time runs out before it returns.
        """
        timeout = asyncio.timeout(self.left_s)
        try:
            async with timeout:
                found = await work
        except TimeoutError:
            if not timeout.expired():
                raise
            raise DeadlineExceeded("the request's time ran out") from None
        self.check()
        return found
