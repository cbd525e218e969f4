"""One deadline for a request, from its first byte on, however much is asked for it."""

from __future__ import annotations

import asyncio
import pydoc
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.compat.openai import searches
from app.requests import deadline
from app.requests.deadline import Deadline
from app.scoring import candidate_results as outcomes
from app.scoring.scored_candidate import ScoredCandidate
from model_runtime import DeadlineExceeded, RequestOptions
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine, _outcome

pytestmark = pytest.mark.anyio

TIMEOUT_MS = 60_000
DETAIL: dict[str, Any] = {"context": "it is", "candidates": [" yes", "n't"]}
TALK = [{"role": "assistant", "content": "it is"}]
MANY: list[tuple[str, dict[str, Any]]] = [
    ("/v1/audit", DETAIL),
    ("/v1/completions", {"prompt": ["it is", "a", "b"], "max_tokens": 2, "echo": True}),
    ("/v1/completions", {"prompt": ["it is", "a"], "max_tokens": 2, "echo": True, "logprobs": 1}),
    ("/v1/completions", {"prompt": ["it is", "a", "b"], "max_tokens": 2, "stream": True}),
    ("/v1/chat/completions", {"messages": TALK, "max_tokens": 2, "echo": True, "logprobs": True}),
]
"""Requests for which the engine is asked several times."""


class FakeClock:
    """Stands in for the ``time`` module; goes on where a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock that deadlines are read from."""
    clock = FakeClock()
    monkeypatch.setattr(deadline, "time", clock)
    # What is asked side by side has no order in which the clock could go on.
    monkeypatch.setattr(searches, "MAX_CONCURRENT", 1)
    return clock


class TickingEngine(FakeEngine):
    """Answers at once, while so many seconds pass; remembers by when each answer was wanted."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = seconds
        self.until: list[float] = []

    def _take(self, queries: Any, options: RequestOptions) -> None:
        super()._take(queries, options)
        assert options.deadline is not None
        self.until.append(options.deadline)
        self._clock.now += self._seconds


async def answer_of(engine: FakeEngine, path: str, body: Any, **settings: Any) -> httpx.Response:
    """What one request is answered."""
    async with client_of(shell_app(engine, **settings)) as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize(("path", "body"), MANY)
@pytest.mark.parametrize("own", [True, False], ids=["own", "default"])
async def test_all_that_is_asked_for_a_request_has_its_deadline(
    clock: FakeClock, path: str, body: dict[str, Any], own: bool
) -> None:
    """It is a moment that does not move while the engine answers, whoever has set it."""
    engine = TickingEngine(clock, 0.25)
    ends = clock.now + TIMEOUT_MS / 1000
    given = {"timeout_ms": TIMEOUT_MS} if own else {}
    response = await answer_of(engine, path, {**body, **given}, default_timeout_ms=TIMEOUT_MS)
    assert response.status_code == 200, response.text
    assert len(engine.until) > 1
    # An audit's searches end halfway, so that what they have found can be told.
    late = [until for until in engine.until if until > ends - 25]
    assert late == [ends] * len(late)
    early = len(engine.until) - len(late)
    assert early == (4 if path == "/v1/audit" else 0)
    assert max(engine.until) <= ends


@pytest.mark.parametrize(("path", "body"), MANY[:3])
@pytest.mark.parametrize("own", [True, False], ids=["own", "default"])
async def test_a_request_of_many_questions_ends_with_its_time(
    clock: FakeClock, path: str, body: dict[str, Any], own: bool
) -> None:
    """Where each is in time and all of them are not, it is 504, and no more is asked."""
    engine = TickingEngine(clock, 40.0)
    began = clock.now
    given = {"timeout_ms": TIMEOUT_MS} if own else {}
    response = await answer_of(engine, path, {**body, **given}, default_timeout_ms=TIMEOUT_MS)
    assert response.status_code == 504, response.text
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert len(engine.until) == 2
    assert clock.now - began == 80.0


async def test_the_time_runs_while_the_body_arrives(clock: FakeClock) -> None:
    """A request whose body took all its time is answered so, and the engine hears nothing."""
    engine = TickingEngine(clock, 0.0)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"context": "it is", "timeout_ms": 1000, '
        clock.now += 2.0
        yield b'"candidates": [" yes"]}'

    async with client_of(shell_app(engine)) as client:
        headers = {"Content-Type": "application/json"}
        response = await client.post("/v1/score", content=body(), headers=headers)
    assert response.status_code == 504, response.text
    assert engine.until == []


async def test_the_next_request_has_its_own_time(clock: FakeClock) -> None:
    """An arrival counts for one request, not for those behind it on the connection."""
    engine = TickingEngine(clock, 0.9)
    async with client_of(shell_app(engine)) as client:
        for _ in range(3):
            response = await client.post("/v1/score", json={**DETAIL, "timeout_ms": 1_000})
            assert response.status_code == 200, response.text


def test_a_deadline_counts_from_the_arrival(clock: FakeClock) -> None:
    """From now on where none was noticed; never where there is no limit."""
    arrived = clock.now
    clock.now += 3.0
    assert Deadline.after(5_000, arrived).left_s == 2.0
    assert Deadline.after(5_000, arrived).halfway().left_s == 1.0
    assert Deadline.after(5_000).left_s == 5.0
    assert Deadline.after(None).left_s is None
    assert Deadline.after(None).halfway().left_s is None
    Deadline.after(None).check()
    Deadline.after(1).check()
    with pytest.raises(DeadlineExceeded):
        Deadline.within(0.0).check()


async def test_another_timeout_is_not_the_deadline() -> None:
    """A ``TimeoutError`` of the work itself is no word about the request's time."""

    async def fails() -> None:
        raise TimeoutError("something else")

    with pytest.raises(TimeoutError, match="something else"):
        await Deadline.within(60.0).run_before(fails())
    with pytest.raises(DeadlineExceeded):
        await Deadline.within(0.0).run_before(asyncio.Event().wait())


RANKED = {"mode": "query_likelihood", "template": "{document}{query}"}
LISTED: dict[str, Any] = {"context": "it", "candidates": [f"{n}" for n in range(70)]}
RENDERED: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/score", DETAIL, "app.service.build_scores"),
    ("/v1/score", LISTED, "app.service.build_scores"),
    ("/v1/score", {**LISTED, "top_n": 2}, "app.service.build_scores"),
    ("/v1/score", {**DETAIL, "boundary": "marginal"}, "app.service.build_marginal"),
    ("/v1/score", DETAIL, "app.http.json_response.dump_json_chunked"),
    ("/v1/score", {**LISTED, "candidates": [f"{n}" for n in range(600)]}, "to_json_beside"),
    ("/v1/next_token", {"context": "it"}, "app.service.build_distribution"),
    ("/v1/next_token", {"context": "it", "top_k": 70}, "app.service.build_distribution"),
    ("/v1/decode", {"context": "it", "max_tokens": 1}, "app.service.build_decode_body"),
    ("/v1/audit", DETAIL, "app.audit.service._explained"),
    ("/v1/audit", DETAIL, "app.http.json_response.dump_json_chunked"),
    ("/v1/completions", {"prompt": "it", "max_tokens": 1}, "app.compat.openai.service._written"),
    (
        "/v1/chat/completions",
        {"messages": TALK, "max_tokens": 1},
        "app.compat.openai.chat.service._written",
    ),
    (
        "/v1/rerank",
        {**RANKED, "query": "it", "documents": ["is"]},
        "app.compat.rerank.routes.v1_answer",
    ),
    (
        "/score",
        {**RANKED, "text_1": "it", "text_2": ["is"]},
        "app.compat.generative_scoring.pairs._score_list",
    ),
]
"""Requests, and what puts their answers together."""


@pytest.mark.parametrize(("path", "body", "place"), RENDERED)
async def test_the_answer_is_written_in_time(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], place: str
) -> None:
    """What the model has answered in time and nobody has written by then is 504, too."""
    place = place.replace("to_json_beside", "app.http.json_response.dump_json_chunked")
    render = pydoc.locate(place)
    assert callable(render)

    def slow(*args: Any, **kwargs: Any) -> Any:
        clock.now += 61.0
        return render(*args, **kwargs)

    engine = TickingEngine(clock, 0.0)
    async with client_of(shell_app(engine)) as client:
        body = {**body, "timeout_ms": TIMEOUT_MS}
        assert (await client.post(path, json=body)).status_code == 200
        monkeypatch.setattr(place, slow)
        response = await client.post(path, json=body)
    assert response.status_code == 504, response.text
    assert "time ran out" in response.text


async def test_an_answer_that_is_not_written_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The 504 comes while the answer is being put together, and the rest of it never is."""
    gate, entered = threading.Event(), threading.Event()
    read: list[int] = []

    class Held(ScoredCandidate):
        @classmethod
        def read(cls, *args: Any) -> ScoredCandidate:
            read.append(1)
            entered.set()
            if not gate.wait(30):
                raise TimeoutError("the test forgot to let go")
            return ScoredCandidate.read(*args)

    monkeypatch.setattr(outcomes, "ScoredCandidate", Held)
    body = {"context": "it", "candidates": [f"{n}" for n in range(2_000)], "timeout_ms": 2_000}
    async with client_of(app := shell_app(FakeEngine())) as client:
        response = await client.post("/v1/score", json=body)
        assert entered.is_set()
        assert response.status_code == 504, response.text
        assert read == [1]
        gate.set()
        async with asyncio.timeout(30):
            while app.state.service.has_abandoned_threads:
                await asyncio.sleep(0.001)
    assert read == [1]


@pytest.mark.parametrize(
    ("path", "body", "unfinished"),
    [
        ("/v1/decode", {"strategy": "exact", "max_tokens": 3}, "certificate.optimal"),
        ("/v1/score", {**DETAIL, "top_n": 1}, None),
        ("/v1/score", {**DETAIL, "boundary": "marginal"}, None),
    ],
)
async def test_a_search_tells_what_it_has_found_when_the_time_is_over(
    clock: FakeClock, path: str, body: dict[str, Any], unfinished: str | None
) -> None:
    """That is an answer, though it is put together behind the deadline."""

    class Late(TickingEngine):
        async def decode(self, search: Any, options: RequestOptions) -> Any:
            self._take([], options)
            search.advance([self.answer(query) for query in search.queries()])
            assert search.finish_early()
            return _outcome(search.result(), 1)

    engine = Late(clock, 61.0)
    response = await answer_of(engine, path, {"context": "it is", **body, "timeout_ms": TIMEOUT_MS})
    assert response.status_code == 200, response.text
    found = response.json()
    for key in unfinished.split(".") if unfinished else ():
        found = found[key]
    assert found is False or unfinished is None
