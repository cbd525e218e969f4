"""One call from the first attempt to its answer, without any I/O.

``exchange`` is a generator: it asks whoever drives it to send or to wait, and is told what came
of it. The two clients differ in nothing but how they do these two things::

    exchange                driver
    ── Attempt(call) ────>  send it
    <──────── Answered ───  or NoAnswer
    ── Wait(0.7) ────────>  sleep
    <──────────── None ───
    ── Attempt(call) ────>  send it again
    ...
    return                  the answer that is not worth another attempt
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

from app.client.errors import ApiError, ConnectionFailed, InvalidResponse, api_error

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """What is to be asked.

    Attributes:
        method, path: of the request.
        body: JSON; None for none.
        read: the answer from its bytes. Raises ``ValueError`` for what is none.
        request_id: sent as ``X-Request-Id``, the same one at every attempt.
        also: statuses beyond 2xx whose body is an answer as well.
    """

    method: str
    path: str
    body: bytes | None
    read: Callable[[bytes], T]
    request_id: str
    also: frozenset[int] = frozenset()

    @property
    def headers(self) -> dict[str, str]:
        """Those that belong to this call."""
        kind = {} if self.body is None else {"Content-Type": "application/json"}
        return {"X-Request-Id": self.request_id, **kind}


@dataclass(frozen=True, slots=True)
class Attempt:
    """Send the call; ``timeout_s`` is what is left of its time."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole response; header names in lower case.

    ``body`` is empty where the response is a stream that has begun well: it is read elsewhere.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class TransportFailure:
    """There was no response. ``sent_again`` says whether another attempt makes sense."""

    error: ConnectionFailed
    sent_again: bool


Step = Attempt | Wait
AttemptResult = HttpResponse | TransportFailure | None
Exchange = Generator[Step, AttemptResult, HttpResponse]


def exchange(
    call: Call[T], policy: Retries, now: Callable[[], float] = time.monotonic
) -> Generator[Step, AttemptResult, HttpResponse]:
    """Attempts until one succeeds; returns its response.

    Raises:
        NoAnswer, ApiError: what the last attempt failed with.
    """
    attempts = Attempts(policy, now)
    while True:
        told = yield Attempt(attempts.left_s)
        if isinstance(told, HttpResponse) and _is_good(call, told):
            return told
        error, again, asked_s = _failure(call, told)
        wait_s = attempts.next_wait_s(asked_s) if again else None
        if wait_s is None:
            raise error
        yield Wait(wait_s)


def read_answer(call: Call[T], answered: HttpResponse) -> T:
    """The answer of a response that ``exchange`` has returned.

    Raises:
        UnreadableAnswer: it is none of this server.
    """
    try:
        return call.read(answered.body)
    except ValueError as error:
        raise InvalidResponse(
            f"{call.path} was answered with something else: {error}", request_id=call.request_id
        ) from error


def _is_good(call: Call[T], answered: HttpResponse) -> bool:
    return 200 <= answered.status < 300 or answered.status in call.also


def _failure(
    call: Call[T], told: AttemptResult
) -> tuple[ApiError | ConnectionFailed, bool, float | None]:
    """What went wrong, whether to try again, and after how long the server would have it."""
    if isinstance(told, TransportFailure):
        return told.error, told.sent_again, None
    if told is None:
        raise RuntimeError("this is a bug: an attempt was made and nothing was told of it")
    request_id = told.headers.get("x-request-id", call.request_id)
    error = api_error(told.status, told.body, request_id)
    return error, is_retryable(told.status, error.code), retry_after_s(told.headers)


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


class Attempts:
    """How often one call has failed, and what time is left for it.

    Args:
        policy: how persistent to be.
        now: seconds on a clock that never goes back, as ``time.monotonic``.
        dice: numbers in 0..1.
    """

    def __init__(
        self,
        policy: Retries,
        now: Callable[[], float],
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._now = now
        self._dice = dice
        self._failed = 0
        self._end = math.inf if policy.total_s is None else now() + policy.total_s

    @property
    def left_s(self) -> float:
        """Seconds that an attempt may take; infinite where there is no limit."""
        return self._end - self._now() if self._policy.cuts_attempts else math.inf

    def next_wait_s(self, asked_s: float | None) -> float | None:
        """After another failure: seconds to wait before the next attempt; None to give up."""
        self._failed += 1
        if self._failed >= self._policy.attempts:
            return None
        wait_s = self._policy.wait_s(self._failed, asked_s, self._dice)
        return wait_s if wait_s < self._end - self._now() else None


def is_retryable(status: int, code: str | None) -> bool:
    """Whether another attempt may succeed where this one had ``status``."""
    return status in _FOR_NOW and code != "deadline_exceeded"


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """What ``Retry-After`` asks for, in seconds; None where it is missing or makes no sense.

    Args:
        headers: of a response, in lower case.
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
