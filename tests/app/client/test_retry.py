"""When a call is sent again and how long that waits."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.client import (
    ApiError,
    AsyncClient,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    Overloaded,
    Retries,
)
from app.client.retry import LONGEST_ASKED_S, retry_after_s
from tests.app.in_process import URL

OK = httpx.Response(200, json={"status": "ready"})
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
POLICY = Retries(attempts=4, first_wait_s=1.0, longest_wait_s=3.0, total_s=100.0)


def error(status: int, code: str = "x", **headers: str) -> httpx.Response:
    """A response with the server's error object."""
    body = {"error": {"message": "no", "type": "t", "param": "p.1", "code": code}}
    return httpx.Response(status, headers=headers, json=body)


class Play:
    """A server that answers one thing after another, and a clock that only waits move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[float] = []
        self.limits: list[float | None] = []
        self.now_s = 0.0
        self.answer_s = 0.0
        self._told: list[httpx.Response | Exception] = []
        monkeypatch.setattr("app.client.sync_client.sleep", self._sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)

    def __call__(self, *told: httpx.Response | Exception, policy: Retries = POLICY) -> Any:
        """What a call ends with when these are its answers, of which none is left over."""
        self._told = list(told)
        transport = httpx.MockTransport(self._answer)
        with Client(URL, retries=policy, timeout_s=1000.0, transport=transport) as client:
            answer = client.health()
        assert not self._told
        return answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.limits.append(request.extensions["timeout"]["read"])
        self.now_s += self.answer_s
        told = self._told.pop(0)
        if isinstance(told, Exception):
            raise told
        return told

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Nothing told yet, and no time gone."""
    return Play(monkeypatch)


def test_a_success_is_not_sent_again(play: Play) -> None:
    """One attempt, no wait."""
    assert play(OK) == {"status": "ready"}
    assert play.waits == []


@pytest.mark.parametrize("status", [429, 502, 504])
def test_what_is_refused_for_now_is_sent_again(play: Play, status: int) -> None:
    """A full queue and a proxy's failures pass."""
    assert play(error(status), OK) == {"status": "ready"}
    assert len(play.waits) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 501])
def test_what_would_fail_again_is_raised_at_once(play: Play, status: int) -> None:
    """The request or the server's own failure at it is no matter of time."""
    with pytest.raises(ApiError) as caught:
        play(error(status))
    assert (caught.value.status, caught.value.param, caught.value.code) == (status, "p.1", "x")


def test_the_servers_own_deadline_is_not_tried_again(play: Play) -> None:
    """A request that has used up its time would use it up again; a proxy's 504 is another thing."""
    with pytest.raises(DeadlineExceeded):
        play(error(504, code="deadline_exceeded"))
    assert play.waits == []


def test_the_last_failure_is_raised(play: Play) -> None:
    """After the last attempt the error says what that one failed with."""
    with pytest.raises(Overloaded) as caught:
        play(*[error(502)] * 3, error(429, code="queue_full", **{"retry-after": "7"}))
    assert (caught.value.code, caught.value.retry_after_s) == ("queue_full", 7.0)
    assert len(play.waits) == 3


def test_a_lost_connection_is_tried_again_and_a_timeout_is_not(play: Play) -> None:
    """The transport says which of its failures another attempt may mend."""
    assert play(httpx.ConnectError("lost"), httpx.ReadError("cut"), OK) == {"status": "ready"}
    with pytest.raises(ConnectionFailed) as caught:
        play(httpx.ReadTimeout("slow"))
    assert isinstance(caught.value.__cause__, httpx.ReadTimeout)
    assert len(play.waits) == 2


def test_waits_double_up_to_the_longest(play: Play) -> None:
    """Half of a wait is chance: between 1/2 and all of 1, 2, 3 seconds."""
    play(*[error(502)] * 3, OK)
    bounds = zip(play.waits, (0.5, 1, 1.5), (1, 2, 3), strict=True)
    assert all(low <= wait <= high for wait, low, high in bounds)
    assert POLICY.wait_s(1, None, lambda: 0.0) == 0.5
    assert [POLICY.wait_s(n, None, lambda: 1.0) for n in (1, 2, 3, 4, 5000)] == [1, 2, 3, 3, 3]


def test_what_the_server_asks_for_is_waited_in_full(play: Play) -> None:
    """``Retry-After`` beats the backoff, also where it is longer than the longest wait."""
    play(error(429, **{"retry-after": "20"}), OK)
    assert 20 <= play.waits[0] <= 20.3


def test_what_does_not_fit_into_the_time_is_not_waited_for(play: Play) -> None:
    """A wait that ends behind the total is none: the failure is raised at once."""
    with pytest.raises(Overloaded):
        play(error(429, **{"retry-after": "101"}))
    assert play.waits == []


def test_the_time_of_attempts_counts(play: Play) -> None:
    """Each attempt may take what is left of the total; the last may not begin behind it."""
    play.answer_s = 45.0
    with pytest.raises(Overloaded):
        play(error(429, **{"retry-after": "1"}), error(429, **{"retry-after": "10"}))
    assert play.limits == [100.0, pytest.approx(54, abs=0.2)]


def test_a_limit_may_leave_an_attempt_its_whole_time(play: Play) -> None:
    """Then it only bounds when another one may begin."""
    play.answer_s = 3.0
    policy = Retries(total_s=5.0, first_wait_s=0.1, cuts_attempts=False)
    with pytest.raises(Overloaded):
        play(error(429), error(429), policy=policy)
    assert play.limits == [1000.0, 1000.0]


@pytest.mark.anyio
@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_call_ends_with_its_task(is_refused: bool) -> None:
    """Whether it waits for an answer or for its next attempt."""
    is_asked = asyncio.Event()

    async def answer(_request: httpx.Request) -> httpx.Response:
        is_asked.set()
        if not is_refused:
            await asyncio.Event().wait()
        return error(429, **{"retry-after": "300"})

    async with AsyncClient(URL, transport=httpx.MockTransport(answer)) as client:
        call = asyncio.create_task(client.health())
        await is_asked.wait()
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


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


def test_a_date_beyond_all_dates_is_none() -> None:
    """Its zone alone is more than a clock can hold."""
    date = "Thu, 01 Jan 2026 12:00:00 +99999999999999999"
    assert retry_after_s({"retry-after": date}, NOW) is None


def test_what_no_clock_can_wait_for_is_bounded() -> None:
    """A number that is finite and absurd."""
    assert retry_after_s({"retry-after": "1e300"}, NOW) == LONGEST_ASKED_S
