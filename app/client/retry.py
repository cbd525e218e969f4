"""When a call is sent again, and how long that waits. Without any I/O: tenacity drives it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay

from app.client.errors import ApiError, ConnectionFailed

LONGEST_ASKED_S = 366 * 86_400.0
"""A server that asks for a longer wait is taken at this: clocks cannot wait for ever."""

_FOR_NOW = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Retries:
    """How persistent a client is.

    Attributes:
        attempts: requests sent for one call at most, the first one included; 1 never retries.
        first_wait_s: before the second; each further wait is twice the one before.
        longest_wait_s: no wait is longer, but where the server itself asks for more.
        total_s: seconds that one call may take with everything; None for no limit.
        cuts_attempts: whether an attempt that is under way ends with ``total_s`` as well; else
            it has its whole timeout, and ``total_s`` bounds when the last one may begin.
    """

    attempts: int = 6
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    total_s: float | None = 600.0
    cuts_attempts: bool = True

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts must be at least 1")
        if not 0 <= self.first_wait_s <= self.longest_wait_s:
            raise ValueError("0 <= first_wait_s <= longest_wait_s must hold")
        if self.total_s is not None and self.total_s <= 0:
            raise ValueError("total_s must be positive")

    def rules(self) -> dict[str, Any]:
        """The arguments of tenacity's ``Retrying``. A wait that ends too late is none."""
        limit_s = math.inf if self.total_s is None else self.total_s
        return {
            "retry": retry_if_exception(is_retryable),
            "stop": stop_after_attempt(self.attempts) | stop_before_delay(limit_s),
            "wait": self._wait_s,
            "reraise": True,
        }

    def left_s(self, state: RetryCallState) -> float:
        """Seconds that the next attempt may take; infinite where there is no limit."""
        if self.total_s is None or not self.cuts_attempts:
            return math.inf
        return self.total_s - (time.monotonic() - state.start_time)

    def wait_s(self, failed: int, asked_s: float | None, dice: Callable[[], float]) -> float:
        """Seconds to wait after so many failed attempts.

        Half of a wait is chance, so that clients that failed together do not return together.

        Args:
            failed: attempts so far, at least 1.
            asked_s: what the server asked for; never less than that is waited.
            dice: numbers in 0..1.
        """
        # A power of two beyond the longest wait is of no use, and beyond floats an error.
        doublings = min(failed - 1, 60)
        backoff = min(self.longest_wait_s, self.first_wait_s * 2.0**doublings)
        backoff *= 0.5 + 0.5 * dice()
        if asked_s is None:
            return backoff
        return asked_s + 0.1 * dice() * min(asked_s, self.longest_wait_s)

    def _wait_s(self, state: RetryCallState) -> float:
        error = state.outcome and state.outcome.exception()
        asked_s = error.retry_after_s if isinstance(error, ApiError) else None
        return self.wait_s(state.attempt_number, asked_s, random.random)


def is_retryable(error: BaseException) -> bool:
    """Whether another attempt may succeed where this one failed."""
    if isinstance(error, ApiError):
        return error.status in _FOR_NOW and error.code != "deadline_exceeded"
    return isinstance(error, ConnectionFailed) and error.is_retryable


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """What ``Retry-After`` asks for, in seconds; None where it is missing or makes no sense.

    Args:
        headers: of a response, in lower case or as httpx has them.
        now: what a date is compared with; None for the present.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        seconds = _until(value, now or datetime.now(UTC))
    return min(max(0.0, seconds), LONGEST_ASKED_S) if math.isfinite(seconds) else None


def _until(date: str, now: datetime) -> float:
    try:
        when = parsedate_to_datetime(date)
        # RFC 9110 dates are in GMT, also where one says nothing of its zone.
        return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, OverflowError):
        return math.nan
