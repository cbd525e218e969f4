"""Completions that find no room in the queue wait in a line, and plan what they ask once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from app.compat.openai import admission_retry as patience
from app.compat.openai import admission_retry as waiting_line
from app.compat.openai import service as completion_service
from app.compat.openai.admission_retry import AdmissionRetry, WaitQueue
from app.requests.deadline import Deadline
from model_runtime import DeadlineExceeded, EngineOverloaded, Priority
from tests.app.compat.openai.completion_calls import PATH, choice_of, complete, pieces_of
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import QUEUE_TOKENS, FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


class Room:
    """Turns away who asks while there is none, and remembers who asked."""

    def __init__(self) -> None:
        self.is_there = False
        self.asked: list[str] = []

    def question(self, name: str) -> Callable[[], Awaitable[str]]:
        """Answered with its name."""

        async def ask() -> str:
            self.asked.append(name)
            if not self.is_there:
                raise EngineOverloaded("the queue is full", retry_after_s=0.0)
            return name

        return ask


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def waiting(line: WaitQueue, room: Room, names: str) -> list[asyncio.Task[str]]:
    """One request for each name."""
    return [
        asyncio.create_task(AdmissionRetry(Deadline(None), line).ask(room.question(n)))
        for n in names
    ]


async def test_only_the_first_of_a_line_asks() -> None:
    """Whoever comes later asks when it is their turn, in the order in which they came."""
    line, room = WaitQueue(), Room()
    tasks = waiting(line, room, "a")
    await settle()
    tasks += waiting(line, room, "bc")
    await settle()
    assert (room.asked, len(line)) == (["a", "a"], 3)
    room.is_there = True
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]
    assert room.asked == ["a", "a", "a", "b", "c"]
    assert len(line) == 0


async def test_whoever_leaves_makes_way() -> None:
    """A request that is cancelled while it waits, first or not, keeps nobody from getting in."""
    line, room = WaitQueue(), Room()
    tasks = waiting(line, room, "a")
    await settle()
    tasks += waiting(line, room, "bc")
    await settle()
    room.is_there = True
    for task in tasks[:2]:
        task.cancel()
    assert await tasks[2] == "c"
    assert "b" not in room.asked
    assert len(line) == 0


async def test_what_takes_long_is_in() -> None:
    """A question that is not turned away at once does not hold up the next one."""
    line, room = WaitQueue(), Room()
    never = asyncio.Event()

    async def long() -> None:
        room.asked.append("long")
        if room.asked == ["long"]:
            raise EngineOverloaded("the queue is full", retry_after_s=0.0)
        await never.wait()

    task = asyncio.create_task(AdmissionRetry(Deadline(None), line).ask(long))
    await settle()
    room.is_there = True
    assert await AdmissionRetry(Deadline(None), line).ask(room.question("next")) == "next"
    never.set()
    await task


async def test_a_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many requests, or so many tokens of them, one is turned away without asking."""
    monkeypatch.setattr(waiting_line, "MAX_WAITING", 2)
    monkeypatch.setattr(waiting_line, "MAX_WAITING_TOKENS", 10)
    line, room = WaitQueue(), Room()
    with line.place(11):
        late = AdmissionRetry(Deadline(None), line)
        late.tokens = 1
        with pytest.raises(EngineOverloaded, match="1 requests wait"):
            await late.ask(room.question("late"))
    with line.place(), line.place(), pytest.raises(EngineOverloaded, match="2 requests wait"):
        await AdmissionRetry(Deadline(None), line).ask(room.question("late"))
    assert room.asked == []
    assert len(line) == 0


async def test_waiting_in_line_ends_with_the_deadline() -> None:
    """A request whose turn does not come in time has run out of it, and has left the line: room
    there may have been, for others."""
    line, room = WaitQueue(), Room()
    with line.place():
        with pytest.raises(DeadlineExceeded):
            await AdmissionRetry(Deadline.within(0.02), line).ask(room.question("late"))
        assert len(line) == 1
    assert room.asked == []


@pytest.mark.parametrize("seconds", [None, 60.0])
async def test_waiting_in_line_ends_with_the_patience(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    """Where the request's time is not over, it is the server that had no room."""
    monkeypatch.setattr(patience, "MAX_WAIT_S", 0.02)
    line, room = WaitQueue(), Room()
    line.retry_after_s = 3.0
    with line.place(), pytest.raises(EngineOverloaded, match="no room") as refusal:
        await AdmissionRetry(Deadline.within(seconds), line).ask(room.question("late"))
    assert refusal.value.retry_after_s == 3.0
    assert room.asked == []


async def test_who_cannot_ask_again_in_time_is_turned_away_at_once() -> None:
    """The queue was full whenever it asked, and has no room before its time ends."""
    line, room = WaitQueue(), Room()

    async def full() -> None:
        room.asked.append("late")
        raise EngineOverloaded("the queue is full", retry_after_s=7.0)

    with pytest.raises(EngineOverloaded) as refusal:
        await AdmissionRetry(Deadline.within(0.9), line).ask(full)
    assert refusal.value.retry_after_s == 7.0
    assert room.asked == ["late", "late"]
    assert len(line) == 0


async def test_the_time_that_runs_out_in_line_is_504(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the request's own time, whether the caller or the operator has set it."""
    engine = FakeEngine()
    app = shell_app(engine, default_timeout_ms=100)
    async with client_of(app) as client:
        await complete(client, prompt="it is", max_tokens=1, timeout_ms=60_000)
        with app.state.completion_lines.of("interactive").place():
            for own in ({}, {"timeout_ms": 50}):
                response = await client.post(PATH, json={"prompt": "it is", **own})
                assert response.status_code == 504, response.text
                assert response.headers["X-Should-Retry"] == "false"
                assert "Retry-After" not in response.headers


async def test_a_full_queue_is_waited_for_before_anything_is_tokenized(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A completion that finds the queue full waits in line as text, and is planned when it is let
    in."""
    planned: list[Any] = []
    plan = completion_service.plan_prompts

    def counted(*arguments: Any) -> Any:
        planned.append(arguments)
        return plan(*arguments)

    monkeypatch.setattr(completion_service, "plan_prompts", counted)
    engine.admission.admit(QUEUE_TOKENS, Priority.INTERACTIVE, 1.0)
    task = asyncio.create_task(choice_of(client, prompt="it is", max_tokens=1))
    await asyncio.sleep(0.2)
    assert planned == []
    engine.admission.free(QUEUE_TOKENS, Priority.INTERACTIVE)
    assert (await task)["text"] == " yes"
    assert len(planned) == 1
    assert engine.admission.queued_tokens == 0


def full_at_first(engine: FakeEngine, verb: str) -> list[Any]:
    """Make the engine turn the first call of a verb away; all calls are listed."""
    asked: list[Any] = []
    answer = getattr(engine, verb)

    async def score(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 1:
            raise EngineOverloaded("the queue is full", retry_after_s=0.0)
        return await answer(*arguments)

    async def stream(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 1:
            raise EngineOverloaded("the queue is full", retry_after_s=0.0)
        async for event in answer(*arguments):
            yield event

    setattr(engine, verb, stream if verb == "stream" else score)
    return asked


async def test_what_is_asked_is_planned_once(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that waits for room is not tokenized again."""
    planned: list[Any] = []
    plan = completion_service.plan_prompts

    def counted(*arguments: Any) -> Any:
        planned.append(arguments)
        return plan(*arguments)

    monkeypatch.setattr(completion_service, "plan_prompts", counted)
    asked = full_at_first(engine, "score")
    assert (await choice_of(client, prompt="it is", max_tokens=1))["text"] == " yes"
    assert (len(asked), len(planned)) == (2, 1)


@pytest.mark.parametrize("echo", [False, True])
async def test_a_stream_waits_for_room(
    client: httpx.AsyncClient, engine: FakeEngine, echo: bool
) -> None:
    """What is streamed is as patient as a plain answer until its search begins."""
    asked = full_at_first(engine, "stream")
    pieces = await pieces_of(client, prompt="it is", echo=echo)
    text = "".join(choice["text"] for piece in pieces for choice in piece["choices"])
    assert (text, len(asked)) == ("it is yes" if echo else " yes", 2)


async def test_patience_ends_with_the_default_deadline() -> None:
    """The operator's own deadline bounds the wait as the caller's does."""
    engine = FakeEngine()
    engine.refusal = EngineOverloaded("the queue is full", retry_after_s=7)
    async with client_of(shell_app(engine, default_timeout_ms=200)) as client:
        response = await client.post(PATH, json={"prompt": "it is"})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")


async def test_more_searches_than_run_at_a_time(client: httpx.AsyncClient) -> None:
    """Every prompt of a large batch has its choice, in order, plain and streamed."""
    prompts = ["it is", "a"] * 70
    answer = await complete(client, prompt=prompts, max_tokens=2)
    assert [choice["text"] for choice in answer["choices"]] == [" yes", "bc"] * 70
    pieces = await pieces_of(client, prompt=prompts, max_tokens=2)
    ends = [c["index"] for p in pieces for c in p["choices"] if c["finish_reason"] is not None]
    assert sorted(ends) == list(range(140))
