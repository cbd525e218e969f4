"""POST /v1/decode with ``stream``: the events, over a law that is written out by hand."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from app.http import sse as event_stream
from model_runtime import DeadlineExceeded, EngineOverloaded, NonFiniteLogits, Priority
from tests.app.calls import call, log, post, refusal
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import END, STOP, FakeEngine
from tests.app.http.middleware.test_middleware import LeavingClient, Message, until
from tests.app.http.middleware.test_middleware import post as post_scope

pytestmark = pytest.mark.anyio

Event = tuple[str, dict[str, Any]]


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


def events_in(text: str) -> list[Event]:
    """Name and data of each event."""
    assert text.endswith("\n\n")
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def stream(client: httpx.AsyncClient, **body: Any) -> list[Event]:
    """The events of a stream that begins."""
    response = await post(client, "decode", stream=True, **body)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    return events_in(response.text)


async def test_a_stream_is_its_tokens_and_then_the_answer(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """One event a token with its log-probability and rank, then what the plain call answers."""
    *tokens, (name, result) = await stream(client)
    end = engine.tokenizer.id(END)
    assert tokens == [
        (
            "token",
            {
                "index": index,
                "id": token_id,
                "text": text,
                "logprob": log(0.5),
                "rank": 1,
            },
        )
        for index, (token_id, text) in enumerate([(260, " yes"), (end, "")])
    ]
    plain = await call(client, "decode")
    assert name == "result"
    assert result.keys() == plain.keys()
    for field in ("object", "model", "fingerprint", "sequences"):
        assert result[field] == plain[field]
    assert result["usage"]["scored_tokens"] == 2
    assert result["id"].startswith("decode-")


async def test_alternatives_are_streamed_on_request(client: httpx.AsyncClient) -> None:
    """``top_logprobs`` lists the most probable tokens at each place."""
    *tokens, _ = await stream(client, top_logprobs=2)
    assert [top["text"] for top in tokens[1][1]["top_logprobs"]] == [END, STOP]


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"max_tokens": 3}, ["b", "c", "\x00"]),
        ({"max_tokens": 2, "stop": "c"}, ["b", ""]),
        ({"max_tokens": 2, "stop": "bc"}, ["", ""]),
        ({"max_tokens": 2, "stop": "bcd"}, ["", "bc"]),
        ({"max_tokens": 2, "stop": ["bd", "zz"]}, ["", "bc"]),
        ({"max_tokens": 2, "stop": ["bc"], "min_tokens": 2}, ["", "bc"]),
        ({"max_tokens": 3, "stop": ["bc"], "min_tokens": 3}, ["", "bc", "\x00"]),
    ],
    ids=repr,
)
async def test_what_may_become_a_stop_is_held_back(
    client: httpx.AsyncClient, body: dict[str, Any], texts: list[str]
) -> None:
    """No part of a stop is ever sent, nothing else is lost, and it comes as soon as it is sure."""
    *tokens, (_, result) = await stream(client, context="a", **body)
    assert [token["text"] for _, token in tokens] == texts
    assert result["sequences"][0]["text"] == "".join(texts)


async def test_half_a_character_waits_for_the_rest(client: httpx.AsyncClient) -> None:
    """Text is sent by whole characters; half a one at the end shows as U+FFFD."""
    sun = "\N{BLACK SUN WITH RAYS}"
    *tokens, _ = await stream(client, candidates=[f"{sun}a"])
    assert [token["text"] for _, token in tokens] == ["", "", sun, "a", ""]
    half = list(sun.encode()[:2])
    *tokens, (_, result) = await stream(client, candidates=[half], append_eos=False)
    assert [token["text"] for _, token in tokens] == ["", "\N{REPLACEMENT CHARACTER}"]
    assert result["sequences"][0]["text"] == "\N{REPLACEMENT CHARACTER}"


async def test_what_fails_before_the_first_token_has_its_status(engine: FakeEngine) -> None:
    """Refusals and failures are ordinary responses as long as nothing was sent."""
    async with client_of(shell_app(engine)) as client:
        error = await refusal(client, "decode", stream=True, max_tokens=63)
        assert error["param"] == "max_tokens"
        engine.refusal = EngineOverloaded("full", 2.0)
        response = await post(client, "decode", stream=True)
        assert (response.status_code, response.headers["Retry-After"]) == (429, "2")
        assert response.json()["error"]["code"] == "queue_full"
        engine.refusal = DeadlineExceeded("late")
        assert (await refusal(client, "decode", 504, stream=True))["code"] == "deadline_exceeded"
    failing = FakeEngine(failures={" is": NonFiniteLogits("secret path")})
    async with client_of(shell_app(failing)) as client:
        assert (await refusal(client, "decode", 500, stream=True))["code"] == "non_finite_logits"


async def test_a_failure_in_the_middle_is_an_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After the first token a failure takes the place of the result, in the one error shape."""
    failing = FakeEngine(failures={" yes": NonFiniteLogits("secret path")})
    caplog.set_level(logging.INFO, logger="app")
    async with client_of(shell_app(failing)) as client:
        (token, _), (name, failure) = await stream(client)
    assert (token, name) == ("token", "error")
    assert failure["error"]["code"] == "non_finite_logits"
    assert "secret" not in failure["error"]["message"]
    (line,) = [one for one in caplog.records if one.name == "app.access"]
    assert vars(line)["error"] == "non_finite_logits"


async def test_a_stream_is_logged_once_it_has_ended(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, with what it cost."""
    caplog.set_level(logging.INFO, logger="app")
    await stream(client)
    (line,) = [vars(one) for one in caplog.records if one.name == "app.access"]
    assert (line["status"], line["strategy"], line["stream"]) == (200, "greedy", True)
    assert (line["prompt_tokens"], line["scored_tokens"], line["cached_tokens"]) == (2, 2, 3)


async def test_the_engine_hears_how_a_stream_wants_to_be_treated(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Priority, salt and the deadline pass through."""
    await stream(client, priority="bulk", timeout_ms=5000, cache_salt="s")
    (options,) = engine.options
    assert (options.priority, options.cache_salt) == (Priority.BULK, "/s")
    assert options.deadline is not None
    assert 0 < options.deadline - time.monotonic() <= 5


async def test_proxies_are_asked_not_to_collect(client: httpx.AsyncClient) -> None:
    """A token is worth sending at once."""
    response = await post(client, "decode", stream=True)
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize(
    "body",
    [
        {"strategy": "beam"},
        {"strategy": "exact"},
        {"compare": ["greedy", "beam"]},
        {"search_tree": True},
        {"stream": 1},
    ],
    ids=repr,
)
async def test_only_greedy_is_streamed(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """No other search knows a token before it has ended."""
    assert (await refusal(client, "decode", **{"stream": True, **body}))["param"] == "stream"


class HaltingEngine(FakeEngine):
    """Streams one token and no more, and knows whether anybody still waits."""

    waiting = False

    async def stream(self, search: Any, options: Any) -> AsyncGenerator[Any, None]:
        self.waiting = True
        try:
            async with aclosing(super().stream(search, options)) as tokens:
                yield await anext(tokens)
                await asyncio.sleep(60)
        finally:
            self.waiting = False


BODY = b'{"context": "it is", "stream": true}'


async def test_a_reader_that_leaves_ends_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    """The engine's iterator is closed, nothing is in flight, and the log tells how far it got."""
    engine, leaver, sent = HaltingEngine(), LeavingClient(BODY), list[Message]()
    app = shell_app(engine)
    caplog.set_level(logging.INFO, logger="app")

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        before = asyncio.all_tasks()
        scope = post_scope(BODY, path="/v1/decode")
        request = asyncio.create_task(app(scope, leaver.receive, send))
        await until(lambda: len(sent) == 2)
        assert engine.waiting
        assert len(app.state.lifecycle.active_requests) == 1
        leaver.left.set()
        await request
        assert not engine.waiting
        assert len(app.state.lifecycle.active_requests) == 0
        assert asyncio.all_tasks() == before
    (line,) = [vars(one) for one in caplog.records if one.name == "app.access"]
    assert (line["status"], line["prompt_tokens"], line["scored_tokens"]) == (499, 2, 1)


@pytest.mark.parametrize("taken", [0, 1])
async def test_a_reader_that_stalls_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, taken: int
) -> None:
    """Who takes no byte for too long loses the stream, as if the connection had been closed."""
    monkeypatch.setattr(event_stream, "STALLED_S", 0.05)
    engine, reader, sent = HaltingEngine(), LeavingClient(BODY), list[Message]()
    app = shell_app(engine)
    caplog.set_level(logging.INFO, logger="app")

    async def send(message: Any) -> None:
        if len(sent) == taken:
            await asyncio.sleep(60)
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(post_scope(BODY, path="/v1/decode"), reader.receive, send)
        assert not engine.waiting
    assert len(sent) == taken
    (line,) = [vars(one) for one in caplog.records if one.name == "app.access"]
    assert line["status"] == 499
    assert not [one for one in caplog.records if one.exc_info]


async def test_what_nobody_expects_cuts_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in the middle of a stream is logged, and the reader sees that the end is missing."""

    class BrokenEngine(FakeEngine):
        async def stream(self, search: Any, options: Any) -> AsyncGenerator[Any, None]:
            async with aclosing(super().stream(search, options)) as tokens:
                yield await anext(tokens)
                raise KeyError("hidden_size")

    app, reader, sent = shell_app(BrokenEngine()), LeavingClient(BODY), list[Message]()
    caplog.set_level(logging.INFO, logger="app")

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(post_scope(BODY, path="/v1/decode"), reader.receive, send)
    assert sent[-1]["more_body"]
    (line,) = [vars(one) for one in caplog.records if one.getMessage() == "request"]
    assert line["status"] == 500
    assert [one for one in caplog.records if one.exc_info]
