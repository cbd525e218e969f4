"""The openai package's chats against a running server: its own types read every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

from model_runtime import grammar_installed
from tests.end_to_end.live_server import LiveServer

pytestmark = pytest.mark.process

needs_grammar = pytest.mark.skipif(not grammar_installed(), reason="the grammar extra is optional")

USER = {"role": "user", "content": "Is the sky blue?"}
SAID = {"role": "assistant", "content": "The sky is blue."}


class Weather(pydantic.BaseModel):
    """What an answer is parsed into."""

    rain: bool


@pytest.fixture(scope="module")
def client(tiny_server: LiveServer) -> Iterator[openai.OpenAI]:
    """A client that tries everything once."""
    with openai.OpenAI(
        base_url=f"{tiny_server.url}/v1", api_key="none needed", max_retries=0
    ) as client:
        yield client


@pytest.fixture(scope="module")
def body(client: openai.OpenAI) -> dict[str, Any]:
    """A question to the one model that there is."""
    (card,) = client.models.list().data
    return {"model": card.id, "messages": [USER], "max_tokens": 6}


def test_an_answer_is_the_greedy_one(
    client: openai.OpenAI, body: dict[str, Any], tiny_server: LiveServer
) -> None:
    """Text, tokens, reason, counts and fingerprint come through the client's types."""
    answer = client.chat.completions.create(
        **body,
        logprobs=True,
        top_logprobs=2,
        temperature=0,
        extra_body={"skip_special_tokens": False},
    )
    native = tiny_server.post("/v1/decode", {"context": [USER], "max_tokens": 6, "top_logprobs": 2})
    (choice,), (found,) = answer.choices, native["sequences"]
    assert (choice.message.content, choice.finish_reason) == (found["text"], found["finish_reason"])
    assert answer.system_fingerprint == native["fingerprint"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(found["token_ids"])
    assert choice.logprobs is not None and choice.logprobs.content is not None
    for token, other in zip(choice.logprobs.content, found["tokens"], strict=True):
        assert (token.logprob, token.bytes) == (other["logprob"], other["bytes"])
        assert [top.logprob for top in token.top_logprobs] == [
            top["logprob"] for top in other["top_logprobs"]
        ]


def test_the_last_message_is_scored(
    client: openai.OpenAI, body: dict[str, Any], tiny_server: LiveServer
) -> None:
    """vLLM's fields go through the client's ``extra_body``; the numbers are /v1/score's."""
    answer = client.chat.completions.create(
        **{**body, "messages": [USER, SAID], "max_tokens": 0},
        logprobs=True,
        extra_body={"continue_final_message": True, "add_generation_prompt": False, "echo": True},
    )
    native = tiny_server.post(
        "/v1/score",
        {"context": [USER], "candidates": [SAID["content"]], "token_logprobs": True},
    )
    (choice,), (result,) = answer.choices, native["results"]
    assert choice.message.content == SAID["content"]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert [token.logprob for token in choice.logprobs.content] == [
        token["logprob"] for token in result["tokens"]
    ]


def test_a_stream_is_read_piece_by_piece(client: openai.OpenAI, body: dict[str, Any]) -> None:
    """By ``create`` and by ``stream``, which puts the pieces together itself."""
    whole = client.chat.completions.create(**body, logprobs=True)
    *pieces, last = client.chat.completions.create(
        **body, logprobs=True, stream=True, stream_options={"include_usage": True}
    )
    assert pieces[0].choices[0].delta.role == "assistant"
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == whole.choices[0].message.content
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage == whole.usage
    with client.chat.completions.stream(**body, logprobs=True) as stream:
        stream.until_done()
        final = stream.current_completion_snapshot
    assert final.choices[0].message.content == text
    assert final.choices[0].logprobs is not None and whole.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content == whole.choices[0].logprobs.content


def test_an_answer_is_taken_back_as_a_message(client: openai.OpenAI, body: dict[str, Any]) -> None:
    """With all the fields that the client's type has."""
    first = client.chat.completions.create(**body).choices[0].message
    more = {**body, "messages": [USER, first.model_dump(), USER]}
    assert client.chat.completions.create(**more).choices[0].message.role == "assistant"


@needs_grammar
def test_an_answer_is_parsed(client: openai.OpenAI, body: dict[str, Any]) -> None:
    """Into a model of pydantic's, whose schema the text is kept to."""
    more = {**body, "max_tokens": 200}
    answer = client.chat.completions.parse(**more, response_format=Weather)
    assert isinstance(answer.choices[0].message.parsed, Weather)
    with client.chat.completions.stream(**more, response_format=Weather) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == (
            answer.choices[0].message.parsed
        )


def test_the_asynchronous_client_gets_the_same(
    client: openai.OpenAI, body: dict[str, Any], tiny_server: LiveServer
) -> None:
    """Whole and in pieces."""

    async def ask() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(
            base_url=f"{tiny_server.url}/v1", api_key="-", max_retries=0
        ) as client:
            whole = await client.chat.completions.create(**body)
            stream = await client.chat.completions.create(**body, stream=True)
            pieces = [piece.choices[0].delta.content or "" async for piece in stream]
        return whole.choices[0].message.content, "".join(pieces)

    expected = client.chat.completions.create(**body).choices[0].message.content
    assert asyncio.run(ask()) == (expected, expected)


def test_refusals_are_the_clients_own_exceptions(
    client: openai.OpenAI, body: dict[str, Any]
) -> None:
    """The kind is told by the status, and the field and code are where the client looks."""
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(**body, temperature=0.7)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**body, "model": "gpt-6"})
    assert missing.value.code == "model_not_found"
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(openai.UnprocessableEntityError, match="images are not read here"):
        client.chat.completions.create(**{**body, "messages": [{"role": "user", "content": image}]})
