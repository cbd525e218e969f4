"""Completions wait while the queue is full, since evaluations give up after a few refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest

from app.compat.openai.plan import plan_prompts
from model_runtime import LogprobQuery, Priority, RequestOptions, RequestOutput
from model_runtime.scheduling import waiting_line
from tests.app.compat.openai.completion_calls import PATH, choice_of, complete, pieces_of
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import QUEUE_TOKENS, FakeEngine

pytestmark = pytest.mark.anyio


class QueueEngine(FakeEngine):
    """Answers what its queue has room for."""

    @asynccontextmanager
    async def _place(self, options: RequestOptions) -> AsyncGenerator[None, None]:
        await self.admission.enter(1, options)
        try:
            await asyncio.sleep(0)
            yield
        finally:
            self.admission.free(1, options.priority)

    async def score(
        self, queries: Sequence[LogprobQuery], options: RequestOptions
    ) -> RequestOutput[Any]:
        async with self._place(options):
            return await super().score(queries, options)

    async def decode(self, search: Any, options: RequestOptions) -> RequestOutput[Any]:
        async with self._place(options):
            return await super().decode(search, options)

    async def stream(self, search: Any, options: RequestOptions) -> AsyncGenerator[Any, None]:
        async with self._place(options):
            async for event in super().stream(search, options):
                yield event

    @contextmanager
    def full(self, tokens: int = QUEUE_TOKENS) -> Iterator[None]:
        """Two others hold so much of the queue."""
        halves = (tokens // 2, tokens - tokens // 2)
        for half in halves:
            self.admission.admit(half, Priority.INTERACTIVE)
        try:
            yield
        finally:
            for half in halves:
                self.admission.free(half, Priority.INTERACTIVE)


@pytest.fixture
def engine() -> QueueEngine:
    """It is the law that answers."""
    return QueueEngine()


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that have been tokenized."""
    requests: list[Any] = []

    def counted(*arguments: Any) -> Any:
        requests.append(arguments)
        return plan_prompts(*arguments)

    monkeypatch.setattr("app.compat.openai.service.plan_prompts", counted)
    return requests


async def waiting(client: httpx.AsyncClient, **body: Any) -> asyncio.Task[httpx.Response]:
    """A request that waits for room when this returns."""
    task = asyncio.create_task(client.post(PATH, json={"prompt": "it is", **body}))
    await asyncio.sleep(0.1)
    assert not task.done()
    return task


async def test_a_full_queue_is_waited_for_before_anything_is_tokenized(
    client: httpx.AsyncClient, engine: QueueEngine, planned: list[Any]
) -> None:
    """A completion that finds the queue full waits as text, and is planned when it is let in."""
    with engine.full():
        task = await waiting(client, max_tokens=1)
        assert planned == []
    assert (await task).json()["choices"][0]["text"] == " yes"
    assert len(planned) == 1
    assert engine.admission.queued_tokens == 0


@pytest.mark.parametrize("max_tokens", [1, 2])
async def test_what_is_planned_waits_without_being_planned_again(
    client: httpx.AsyncClient, engine: QueueEngine, planned: list[Any], max_tokens: int
) -> None:
    """Where the queue fills up while a request is tokenized, it waits for room as it is."""

    async def fills_up(*arguments: Any) -> Any:
        with engine.full():
            task = asyncio.create_task(ask(*arguments))
            await asyncio.sleep(0.05)
            assert not task.done()
        return await task

    verb = "score" if max_tokens == 1 else "decode"
    ask = getattr(engine, verb)
    setattr(engine, verb, fills_up)
    assert (await choice_of(client, prompt="it is", max_tokens=max_tokens))["text"] == " yes"
    assert len(planned) == 1


@pytest.mark.parametrize("echo", [False, True])
async def test_a_stream_waits_for_room(
    client: httpx.AsyncClient, engine: QueueEngine, echo: bool
) -> None:
    """What is streamed waits as a plain answer does."""
    with engine.full():
        task = asyncio.create_task(pieces_of(client, prompt="it is", echo=echo))
        await asyncio.sleep(0.1)
        assert not task.done()
    text = "".join(choice["text"] for piece in await task for choice in piece["choices"])
    assert text == ("it is yes" if echo else " yes")


async def test_nobody_else_waits(client: httpx.AsyncClient, engine: QueueEngine) -> None:
    """What the native API asks is refused at once, whoever waits beside it."""
    with engine.full():
        task = await waiting(client)
        for path, body in (
            ("/v1/next_token", {"context": "it is"}),
            ("/v1/decode", {"context": "it is"}),
        ):
            response = await client.post(path, json=body)
            assert response.status_code == 429, response.text
    assert (await task).status_code == 200


async def test_the_time_that_runs_out_in_line_is_504(engine: QueueEngine) -> None:
    """It is the request's own time, whether the caller or the operator has set it."""
    async with client_of(shell_app(engine, default_timeout_ms=100)) as client:
        with engine.full():
            first = await waiting(client, timeout_ms=60_000)
            for own in ({}, {"timeout_ms": 50}):
                response = await client.post(PATH, json={"prompt": "it is", **own})
                assert response.status_code == 504, response.text
                assert response.headers["X-Should-Retry"] == "false"
                assert "Retry-After" not in response.headers
        assert (await first).status_code == 200


@pytest.mark.parametrize("own", [True, False], ids=["own", "default"])
async def test_who_has_no_time_to_wait_is_refused_at_once(engine: QueueEngine, own: bool) -> None:
    """The first in line has too little time left, and hears when there will be room."""
    given = {"timeout_ms": 500} if own else {}
    async with client_of(shell_app(engine, default_timeout_ms=500)) as client:
        with engine.full():
            response = await client.post(PATH, json={"prompt": "it is", **given})
    assert response.status_code == 429, response.text
    assert 1 <= int(response.headers["Retry-After"]) <= QUEUE_TOKENS / 1000


@pytest.mark.parametrize("stream", [True, False])
async def test_nobody_waits_for_ever(
    client: httpx.AsyncClient,
    engine: QueueEngine,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    """A request that finds no room for long is refused, before the first piece of a stream."""
    monkeypatch.setattr(waiting_line, "MAX_WAIT_S", 0.05)
    with engine.full():
        response = await client.post(PATH, json={"prompt": "it is", "stream": stream})
    assert response.status_code == 429, response.text
    assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("body", [{"max_tokens": 2}, {"max_tokens": 2, "stream": True}])
async def test_a_request_waits_as_one_however_many_prompts_it_has(
    client: httpx.AsyncClient,
    engine: QueueEngine,
    monkeypatch: pytest.MonkeyPatch,
    body: dict[str, Any],
) -> None:
    """Its searches do not use up the places of others, and the line has an end for others."""
    monkeypatch.setattr(waiting_line, "MAX_WAITING", 1)
    with engine.full(QUEUE_TOKENS - 1):
        engine.admission.check_room = lambda priority: None  # type: ignore[method-assign]
        many = asyncio.create_task(
            client.post(PATH, json={"prompt": ["it is", "a"] * 70, **body}),
        )
        assert (await many).status_code == 200
        with engine.full(1):
            many = await waiting(client, prompt=["it is", "a"] * 70, **body)
            response = await client.post(PATH, json={"prompt": "it is", **body})
            assert response.status_code == 429
        assert (await many).status_code == 200


async def test_more_searches_than_run_at_a_time(client: httpx.AsyncClient) -> None:
    """Every prompt of a large batch has its choice, in order, plain and streamed."""
    prompts = ["it is", "a"] * 70
    answer = await complete(client, prompt=prompts, max_tokens=2)
    assert [choice["text"] for choice in answer["choices"]] == [" yes", "bc"] * 70
    pieces = await pieces_of(client, prompt=prompts, max_tokens=2)
    ends = [c["index"] for p in pieces for c in p["choices"] if c["finish_reason"] is not None]
    assert sorted(ends) == list(range(140))
