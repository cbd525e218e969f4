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

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.client.errors import ApiError, NoAnswer, UnreadableAnswer, api_error
from app.client.retries import Attempts, Retries, is_for_now, retry_after_s

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
class Answered:
    """A whole response; header names in lower case.

    ``body`` is empty where the response is a stream that has begun well: it is read elsewhere.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Unanswered:
    """There was no response. ``sent_again`` says whether another attempt makes sense."""

    error: NoAnswer
    sent_again: bool


Step = Attempt | Wait
Told = Answered | Unanswered | None
Exchange = Generator[Step, Told, Answered]


def exchange(
    call: Call[T], policy: Retries, now: Callable[[], float] = time.monotonic
) -> Generator[Step, Told, Answered]:
    """Attempts until one succeeds; returns its response.

    Raises:
        NoAnswer, ApiError: what the last attempt failed with.
    """
    attempts = Attempts(policy, now)
    while True:
        told = yield Attempt(attempts.left_s)
        if isinstance(told, Answered) and _is_good(call, told):
            return told
        error, again, asked_s = _failure(call, told)
        wait_s = attempts.next_wait_s(asked_s) if again else None
        if wait_s is None:
            raise error
        yield Wait(wait_s)


def read_answer(call: Call[T], answered: Answered) -> T:
    """The answer of a response that ``exchange`` has returned.

    Raises:
        UnreadableAnswer: it is none of this server.
    """
    try:
        return call.read(answered.body)
    except ValueError as error:
        raise UnreadableAnswer(
            f"{call.path} was answered with something else: {error}", request_id=call.request_id
        ) from error


def _is_good(call: Call[T], answered: Answered) -> bool:
    return 200 <= answered.status < 300 or answered.status in call.also


def _failure(call: Call[T], told: Told) -> tuple[ApiError | NoAnswer, bool, float | None]:
    """What went wrong, whether to try again, and after how long the server would have it."""
    if isinstance(told, Unanswered):
        return told.error, told.sent_again, None
    if told is None:
        raise RuntimeError("this is a bug: an attempt was made and nothing was told of it")
    request_id = told.headers.get("x-request-id", call.request_id)
    error = api_error(told.status, told.body, request_id)
    return error, is_for_now(told.status, error.code), retry_after_s(told.headers)
