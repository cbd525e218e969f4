"""POST /v1/completions with ``stream``: the pieces are the whole."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from app.compat.openai import sse as completion_stream
from app.compat.openai.searches import interleave
from model_runtime import EngineOverloaded, NonFiniteLogits, RequestTooLarge
from tests.app.compat.openai.completion_calls import PATH, complete, glued, pieces_of, refused
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "it is"},
        {"prompt": "it is", "echo": True},
        {"prompt": "it is", "echo": True, "max_tokens": 0, "logprobs": 1},
        {"prompt": "it is", "max_tokens": 1, "logprobs": 2},
        {"prompt": ["it is", "a", "\N{BLACK SUN WITH RAYS}"], "logprobs": 1, "max_tokens": 3},
        {"prompt": ["it is", "a"], "echo": True, "logprobs": 0, "max_tokens": 3},
        {"prompt": "a", "stop": "cd", "max_tokens": 2, "logprobs": 1},
        {"prompt": "a", "stop": "bc", "max_tokens": 5, "logprobs": 1},
    ],
    ids=repr,
)
async def test_pieces_make_the_whole(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """Texts, listed tokens and the reason of every choice are those of the plain answer."""
    whole = await complete(client, **body)
    pieces = await pieces_of(client, **body)
    assert [glued(pieces, choice["index"]) for choice in whole["choices"]] == whole["choices"]
    for piece in pieces:
        assert piece["object"] == "text_completion"
        assert piece["id"] == pieces[0]["id"]
        assert piece["usage"] is None


async def test_every_token_is_a_piece(client: httpx.AsyncClient) -> None:
    """Tokens come one by one, and the reason last."""
    pieces = await pieces_of(client, prompt="a", max_tokens=2)
    assert [piece["choices"][0]["text"] for piece in pieces] == ["b", "c", ""]
    reasons = [piece["choices"][0]["finish_reason"] for piece in pieces]
    assert reasons == [None, None, "length"]


async def test_the_bill_comes_last(client: httpx.AsyncClient) -> None:
    """With ``include_usage`` one more piece without choices has the plain answer's usage."""
    body = {"prompt": ["it is", "a"], "echo": True}
    *pieces, last = await pieces_of(client, **body, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == (await complete(client, **body))["usage"]
    assert all(piece["usage"] is None for piece in pieces)


async def test_what_fails_before_the_first_piece_has_its_status(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """A refusal is no stream."""
    await refused(client, prompt="", stream=True)
    engine.refusal = EngineOverloaded("the queue is full", retry_after_s=2)
    response = await client.post(PATH, json={"prompt": "it is", "stream": True})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "2")


async def test_what_fails_later_is_an_error_among_the_pieces() -> None:
    """A client of OpenAI raises at the first data with an ``error``; the end is marked anyway."""
    engine = FakeEngine(failures={" yes": NonFiniteLogits("nan")})
    async with client_of(shell_app(engine)) as client:
        text = (await client.post(PATH, json={"prompt": "it is", "stream": True})).text
    data = [line.removeprefix("data: ") for line in text.splitlines() if "data: " in line]
    first, failure, done = data
    assert json.loads(first)["choices"][0]["text"] == " yes"
    assert json.loads(failure)["error"]["code"] == "non_finite_logits"
    assert done == "[DONE]"


async def test_streams_are_merged_and_closed_together() -> None:
    """All events arrive with their stream's place; one that fails closes the others."""
    closed = []

    async def count(name: str, until: int, failure: Exception | None = None) -> Any:
        try:
            for number in range(until):
                yield number
            if failure is not None:
                raise failure
        finally:
            closed.append(name)

    events = [event async for event in interleave([count("a", 2), count("b", 3)])]
    assert sorted(events) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert sorted(closed) == ["a", "b"]
    closed.clear()
    with pytest.raises(NonFiniteLogits):
        async for _ in interleave([count("a", 10_000), count("b", 0, NonFiniteLogits("nan"))]):
            pass
    assert sorted(closed) == ["a", "b"]


async def test_a_stream_that_is_cancelled_from_inside_ends_the_reader() -> None:
    """As any other failure does; nobody waits for ever."""

    async def cancelled() -> AsyncGenerator[str, None]:
        yield "a"
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled from inside"):
        async with asyncio.timeout(30):
            async for _ in interleave([cancelled(), cancelled()]):
                pass


async def test_a_reader_that_leaves_closes_all_streams() -> None:
    """Nothing is generated for nobody."""
    closed = []

    async def count(name: str) -> Any:
        try:
            for number in range(1_000_000):
                yield number
        finally:
            closed.append(name)

    async with aclosing(interleave([count("a"), count("b")])) as events:
        assert await anext(events) == (0, 0)
    assert sorted(closed) == ["a", "b"]


async def test_both_answers_are_documented(client: httpx.AsyncClient) -> None:
    """/openapi.json shows requests, the plain answer and the events."""
    document = (await client.get("/openapi.json")).json()
    route = document["paths"][PATH]["post"]
    assert set(route["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    schemas = document["components"]["schemas"]
    assert schemas["CompletionRequest"]["examples"]
    assert schemas["Completion"]["examples"]


async def test_a_prompt_at_fault_is_named() -> None:
    """What only the engine can refuse names the prompt as well, with and without ``stream``."""
    engine = FakeEngine(failures={" is": RequestTooLarge("it does not fit")})
    bodies: list[dict[str, Any]] = [
        {"prompt": ["x", "it is"], "max_tokens": 1},
        {"prompt": ["x", "it is"]},
        {"prompt": ["it is"], "stream": True},
    ]
    async with client_of(shell_app(engine)) as client:
        for body in bodies:
            error = await refused(client, **body)
            assert error["param"] == f"prompt.{len(body['prompt']) - 1}"
            assert error["code"] == "request_too_large"


async def test_large_pieces_are_written_off_the_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop writes what is small by itself; the bytes are the same either way."""
    body: dict[str, Any] = {"prompt": "it is", "echo": True, "logprobs": 5, "max_tokens": 2}
    choices = [piece["choices"] for piece in await pieces_of(client, **body)]
    written: list[str] = []
    write = completion_stream.dump_json_chunked

    def watched(piece: Any) -> bytes:
        written.append(threading.current_thread().name)
        return write(piece)

    monkeypatch.setattr(completion_stream, "dump_json_chunked", watched)
    monkeypatch.setattr(completion_stream, "LARGE", 11)
    assert [piece["choices"] for piece in await pieces_of(client, **body)] == choices
    assert written[0] != threading.current_thread().name
    assert written[-1] == threading.current_thread().name
