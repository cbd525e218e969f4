"""When a call is sent again and how long that waits, without any I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any

import pytest

from app.client import ApiError, ConnectionFailed, Overloaded, Retries
from app.client.retry import (
    LONGEST_ASKED_S,
    Attempt,
    AttemptResult,
    Attempts,
    Call,
    HttpResponse,
    TransportFailure,
    Wait,
    exchange,
    retry_after_s,
)

CALL: Call[bytes] = Call("POST", "/v1/score", b"{}", bytes, "my-id")
OK = HttpResponse(200, {}, b"fine")
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
POLICY = Retries(attempts=4, first_wait_s=1.0, longest_wait_s=3.0, total_s=100.0)


def error(status: int, code: str = "x", **headers: str) -> HttpResponse:
    """A response with the server's error object."""
    body = f'{{"error": {{"message": "no", "type": "t", "param": "p.1", "code": "{code}"}}}}'
    return HttpResponse(status, headers, body.encode())


def play(
    *told: AttemptResult, policy: Retries = POLICY, now: Callable[[], float] = lambda: 0.0
) -> tuple[HttpResponse, list[float]]:
    """What an exchange ends with when it is told these things, and how long it waited."""
    waits: list[float] = []
    steps: Generator[Any, AttemptResult, HttpResponse] = exchange(CALL, policy, now)
    answers = iter(told)
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                waits.append(step.seconds)
                step = steps.send(None)
            else:
                assert isinstance(step, Attempt)
                step = steps.send(next(answers))
    except StopIteration as end:
        return end.value, waits


def test_a_success_is_not_sent_again() -> None:
    """One attempt, no wait."""
    assert play(OK) == (OK, [])


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_is_refused_for_now_is_sent_again(status: int) -> None:
    """A full queue, a server that starts and a proxy's failures pass."""
    answer, waits = play(error(status), OK)
    assert answer == OK
    assert len(waits) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 501])
def test_what_would_fail_again_is_raised_at_once(status: int) -> None:
    """The request or the server's own failure at it is no matter of time."""
    with pytest.raises(ApiError) as caught:
        play(error(status))
    assert (caught.value.status, caught.value.param, caught.value.code) == (status, "p.1", "x")


def test_the_servers_own_deadline_is_not_tried_again() -> None:
    """A request that has used up its time would use it up again; a proxy's 504 is another thing."""
    with pytest.raises(ApiError):
        play(error(504, code="deadline_exceeded"))


def test_the_last_failure_is_raised() -> None:
    """After the last attempt the error says what that one failed with."""
    with pytest.raises(Overloaded) as caught:
        play(*[error(503)] * 3, error(429, code="queue_full"))
    assert caught.value.code == "queue_full"


def test_a_lost_connection_is_tried_again_and_a_timeout_is_not() -> None:
    """The transport says which of its failures another attempt may mend."""
    lost = ConnectionFailed("lost")
    assert play(TransportFailure(lost, sent_again=True), OK)[0] == OK
    with pytest.raises(ConnectionFailed):
        play(TransportFailure(lost, sent_again=False))


def test_waits_double_up_to_the_longest() -> None:
    """Half of a wait is chance: between 1/2 and all of 1, 2, 3 seconds."""
    _, waits = play(*[error(503)] * 3, OK)
    assert [
        low <= wait <= high for wait, low, high in zip(waits, (0.5, 1, 1.5), (1, 2, 3), strict=True)
    ]
    assert POLICY.wait_s(1, None, lambda: 0.0) == 0.5
    assert [POLICY.wait_s(n, None, lambda: 1.0) for n in (1, 2, 3, 4, 5000)] == [1, 2, 3, 3, 3]


def test_what_the_server_asks_for_is_waited_in_full() -> None:
    """``Retry-After`` beats the backoff, also where it is longer than the longest wait."""
    answer, (wait,) = play(error(429, **{"retry-after": "20"}), OK)
    assert answer == OK
    assert 20 <= wait <= 20.3


def test_what_does_not_fit_into_the_time_is_not_waited_for() -> None:
    """A wait that ends behind the total is none: the failure is raised at once."""
    with pytest.raises(Overloaded):
        play(error(429, **{"retry-after": "101"}), OK)


def test_the_time_of_attempts_counts() -> None:
    """Each attempt is told what is left of the total."""
    clock = [0.0]
    attempts = Attempts(POLICY, lambda: clock[0], lambda: 1.0)
    clock[0] = 40.0
    assert attempts.left_s == 60.0
    assert attempts.next_wait_s(None) == 1.0
    clock[0] = 99.5
    assert attempts.next_wait_s(None) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("-3", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 13:00:30 +0100", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """Seconds or a date; what makes no sense is left to the backoff."""
    assert retry_after_s({"retry-after": value}, NOW) == seconds


def test_no_retry_after() -> None:
    """Most failures come without."""
    assert retry_after_s({}) is None


@pytest.mark.parametrize(
    "bad", [{"attempts": 0}, {"first_wait_s": 2.0, "longest_wait_s": 1.0}, {"total_s": 0.0}]
)
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    """A mistake shows where it is made."""
    with pytest.raises(ValueError, match=r"must"):
        Retries(**bad)


def test_a_limit_may_leave_an_attempt_its_whole_time() -> None:
    """Then it only bounds when another one may begin."""
    policy = Retries(total_s=5.0, cuts_attempts=False)
    steps = exchange(CALL, policy, lambda: 0.0)
    assert next(steps) == Attempt(math.inf)
    clock = iter([0.0, 6.0])
    attempts = Attempts(policy, lambda: next(clock))
    assert attempts.next_wait_s(None) is None


def test_a_date_beyond_all_dates_is_none() -> None:
    """Its zone alone is more than a clock can hold."""
    date = "Thu, 01 Jan 2026 12:00:00 +99999999999999999"
    assert retry_after_s({"retry-after": date}, NOW) is None


def test_what_no_clock_can_wait_for_is_bounded() -> None:
    """A number that is finite and absurd."""
    assert retry_after_s({"retry-after": "1e300"}, NOW) == LONGEST_ASKED_S
