"""POST /v1/chat/completions over a real engine: transformers and the native routes agree."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoTokenizer

from app.decoding import plan as decode_plan
from model_runtime import Engine, EngineConfig, grammar_installed
from tests.app.calls import call
from tests.app.compat.openai.chat.chat_calls import chat, choice_of, chunks_of, glued, refused
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder
from tests.offline import eager_model

pytestmark = pytest.mark.anyio

needs_grammar = pytest.mark.skipif(not grammar_installed(), reason="the grammar extra is optional")

USER = {"role": "user", "content": "Is the sky blue?"}
TALKS: list[list[dict[str, str]]] = [
    [USER],
    [{"role": "system", "content": "It is raining."}, USER],
    [USER, {"role": "assistant", "content": "The sky is"}],
    [USER, {"role": "assistant", "content": ""}],
    [USER, {"role": "assistant", "content": "yes."}, {"role": "user", "content": "no?"}],
]
BOOLEAN = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.fixture
def folder(tiny_folder: TinyFolder) -> Path:
    """A tiny model with random weights and a chat template."""
    return tiny_folder("llama")


@pytest.fixture
async def client(folder: Path, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A server of it."""
    config = EngineConfig(model=str(folder), kv_cache_bytes=1 << 22)
    async with client_of(shell_app(Engine.load(config))) as client:
        yield client


async def test_an_answer_is_what_transformers_generates(
    client: httpx.AsyncClient, folder: Path
) -> None:
    """The same tokens behind the same template, greedy, open messages included."""
    model, tokenizer = eager_model(folder), AutoTokenizer.from_pretrained(folder)
    for messages in TALKS:
        goes_on = messages[-1]["role"] == "assistant"
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
        )
        ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
        found = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        answer = await chat(client, messages=messages, max_tokens=6, logprobs=True)
        assert answer["usage"]["prompt_tokens"] == ids.shape[1]
        (choice,) = answer["choices"]
        spelled = b"".join(bytes(token["bytes"]) for token in choice["logprobs"]["content"])
        assert spelled.decode(errors="replace") == tokenizer.decode(found)


@pytest.mark.parametrize("messages", TALKS, ids=lambda one: str(len(one)) + one[-1]["content"])
async def test_the_numbers_are_the_native_ones(
    client: httpx.AsyncClient, messages: list[dict[str, str]]
) -> None:
    """What /v1/decode lists behind the same messages, to the bit."""
    body: dict[str, Any] = {"max_tokens": 5, "top_logprobs": 3}
    native = await call(client, "decode", context=messages, **body)
    choice = await choice_of(
        client, messages=messages, logprobs=True, skip_special_tokens=False, **body
    )
    (found,) = native["sequences"]
    assert choice["message"]["content"] == found["text"]
    for token, other in zip(choice["logprobs"]["content"], found["tokens"], strict=True):
        assert (token["logprob"], token["bytes"]) == (other["logprob"], other["bytes"])
        tops = [top["logprob"] for top in token["top_logprobs"]]
        assert tops == [top["logprob"] for top in other["top_logprobs"]]


@pytest.mark.parametrize("said", ["The sky is blue.", "yes", "na\N{BLACK SUN WITH RAYS}<|im_end|>"])
async def test_a_scored_message_has_the_bits_of_score(client: httpx.AsyncClient, said: str) -> None:
    """The assistant's last words are a candidate behind the messages before them."""
    native = await call(client, "score", context=[USER], candidates=[said], top_logprobs=2)
    (result,) = native["results"]
    messages = [USER, {"role": "assistant", "content": said}]
    for body in ({"max_tokens": 0}, {"max_tokens": 2, "echo": True}):
        choice = await choice_of(
            client, messages=messages, logprobs=True, top_logprobs=2, ignore_eos=True, **body
        )
        listed = choice["logprobs"]["content"][: len(result["tokens"])]
        assert [token["logprob"] for token in listed] == [
            token["logprob"] for token in result["tokens"]
        ]
        assert [[top["logprob"] for top in token["top_logprobs"]] for token in listed] == [
            [top["logprob"] for top in token["top_logprobs"]] for token in result["tokens"]
        ]
        assert b"".join(bytes(token["bytes"]) for token in listed) == said.encode()
        assert choice["message"]["content"].startswith(said)


async def test_without_a_length_an_answer_has_all_the_room(client: httpx.AsyncClient) -> None:
    """However many choices and listed tokens are asked for."""
    bodies: list[dict[str, Any]] = [{}, {"n": 3}, {"logprobs": True, "top_logprobs": 20}]
    for body in bodies:
        for choice in (await chat(client, messages=[USER], stop=["e", "a"], **body))["choices"]:
            assert choice["finish_reason"] in ("stop", "length")


@needs_grammar
@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_schema", "json_schema": {"name": "a", "schema": BOOLEAN, "strict": True}},
        {"type": "json_object"},
    ],
    ids=lambda one: one["type"],
)
async def test_json_is_what_the_text_is(
    client: httpx.AsyncClient, response_format: dict[str, Any]
) -> None:
    """All of it, where it is given the room; its log-probabilities are the model's own."""
    body: dict[str, Any] = {
        "messages": [USER],
        "response_format": response_format,
        "logprobs": True,
        "max_tokens": 40,
    }
    choice = await choice_of(client, **body)
    if response_format["type"] == "json_schema":
        assert choice["finish_reason"] == "stop"
        assert isinstance(json.loads(choice["message"]["content"])["a"], bool)
    assert choice["message"]["content"].lstrip().startswith("{")
    schema = {"type": "object"} if "json_schema" not in response_format else BOOLEAN
    native = await call(
        client, "decode", context=[USER], json_schema=schema, max_tokens=40, token_logprobs=True
    )
    (found,) = native["sequences"]
    listed = [token["logprob"] for token in choice["logprobs"]["content"]]
    assert listed == [token["logprob"] for token in found["tokens"]]
    assert glued(await chunks_of(client, **body)) == choice


@needs_grammar
async def test_a_schema_that_cannot_be_kept_to_is_named(client: httpx.AsyncClient) -> None:
    """By the field that it came in."""
    schema = {"type": "object", "properties": {"a": {"type": "nothing"}}}
    given = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    for more in ({}, {"stream": True}):
        error = await refused(client, messages=[USER], response_format=given, max_tokens=4, **more)
        assert error["param"] == "response_format.json_schema.schema"


async def test_without_the_extra_json_is_not_implemented(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """501 that names the field and the extra; text goes on."""
    monkeypatch.setattr(decode_plan, "grammar_installed", lambda: False)
    for more in ({}, {"stream": True}):
        error = await refused(client, 501, response_format={"type": "json_object"}, **more)
        assert (error["code"], error["param"]) == ("grammar_not_installed", "response_format")
        assert "grammar extra" in error["message"]
    await chat(client, response_format={"type": "text"}, max_tokens=1)
