"""POST /v1/chat/completions over a law of probabilities that is written out by hand."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from model_runtime import EngineOverloaded, NonFiniteLogits
from tests.app.calls import log
from tests.app.compat.openai.chat.chat_calls import (
    PATH,
    TALK,
    USER,
    chat,
    choice_of,
    chunks_of,
    glued,
    refused,
)
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


def entry(token: str, probability: float, *top: tuple[str, float]) -> dict[str, Any]:
    """A listed token."""

    def told(text: str, probability: float) -> dict[str, Any]:
        return {"token": text, "logprob": log(probability), "bytes": list(text.encode())}

    return {**told(token, probability), "top_logprobs": [told(*one) for one in top]}


async def test_the_answer_around_the_choices(client: httpx.AsyncClient) -> None:
    """The answer has OpenAI's fields, and its fingerprint is the model's."""
    answer = await chat(client, model="org/toy")
    assert answer["id"].startswith("chatcmpl-")
    assert (answer["object"], answer["model"]) == ("chat.completion", "org/toy")
    assert answer["system_fingerprint"] == "f" * 24
    assert answer["created"] > 1_700_000_000
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": " yes", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    prompt = len(f"{BOS}user:a{END}{BOS}assistant:it is".replace(BOS, "b").replace(END, "e")) - 3
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 2,
        "total_tokens": prompt + 2,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


async def test_every_token_is_listed(client: httpx.AsyncClient) -> None:
    """With its bytes, its rivals best first, and the end token last."""
    choice = await choice_of(client, logprobs=True, top_logprobs=2)
    assert choice["logprobs"] == {
        "content": [
            entry(" yes", 0.5, (" yes", 0.5), (" no", 0.25)),
            entry(END, 0.5, (END, 0.5), ("<stop>", 0.25)),
        ],
        "refusal": None,
    }


async def test_an_answer_ends_at_its_length(client: httpx.AsyncClient) -> None:
    """By either name; the two may say the same."""
    for body in (
        {"max_tokens": 1},
        {"max_completion_tokens": 1},
        {"max_tokens": 1, "max_completion_tokens": 1},
    ):
        choice = await choice_of(client, **body)
        assert (choice["message"]["content"], choice["finish_reason"]) == (" yes", "length")


async def test_without_a_length_there_is_all_the_room(engine: FakeEngine) -> None:
    """An answer may be as long as the model has room for, or as a response may list."""
    async with client_of(shell_app(engine)) as client:
        usage = (await chat(client, ignore_eos=True))["usage"]
        assert usage["total_tokens"] == engine.info.max_model_len
    long = FakeEngine(max_model_len=1 << 17)
    async with client_of(shell_app(long)) as client:
        rendered = await client.post(
            f"{PATH}/render", json={"messages": TALK, "logprobs": True, "top_logprobs": 1000}
        )
    assert rendered.json()["sampling_params"]["max_tokens"] == 16


async def test_several_choices_have_a_length_of_their_own() -> None:
    """What nobody asked for is not searched: the room of a long model, as often as ``n``."""
    async with client_of(shell_app(FakeEngine(max_model_len=1 << 17))) as client:
        for body, length in [
            ({"n": 2}, 256),
            ({"n": 512}, 256),
            ({"n": 512, "logprobs": True}, 128),
            ({"n": 2, "max_tokens": 300}, 300),
            ({"n": 2, "max_completion_tokens": 300}, 300),
        ]:
            rendered = await client.post(f"{PATH}/render", json={"messages": TALK, **body})
            assert rendered.json()["sampling_params"]["max_tokens"] == length, body
    async with client_of(shell_app(FakeEngine())) as client:
        answer = await chat(client, n=2, ignore_eos=True, logprobs=True)
        room = FakeEngine().info.max_model_len - answer["usage"]["prompt_tokens"]
        assert [len(one["logprobs"]["content"]) for one in answer["choices"]] == [room, room]


async def test_a_stop_takes_text_and_no_tokens(client: httpx.AsyncClient) -> None:
    """The text is cut before a stop; the tokens that make it are listed."""
    choice = await choice_of(client, stop="es", logprobs=True)
    assert (choice["message"]["content"], choice["finish_reason"]) == (" y", "stop")
    assert [token["token"] for token in choice["logprobs"]["content"]] == [" yes"]


async def test_parts_of_a_message_are_lines(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Texts of one message are put together with line breaks."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "it is"}]
    await chat(client, messages=[{"role": "assistant", "content": parts}], max_tokens=1)
    whole = engine.tokenizer.encode(f"{BOS}assistant:a\nit is", parse_special=True)
    assert engine.queries[-1].tokens == tuple(whole)


async def test_messages_of_anybody_else_are_answered(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """The template's own prompt stands behind them."""
    await chat(client, messages=[USER], max_tokens=1)
    prompt = engine.tokenizer.encode(f"{BOS}user:a{END}{BOS}", parse_special=True)
    assert engine.queries[-1].tokens == tuple(prompt)


FLAGS: list[tuple[list[dict[str, str]], dict[str, Any], str]] = [
    (TALK, {}, f"{BOS}user:a{END}{BOS}assistant:it is"),
    (TALK, {"continue_final_message": True}, f"{BOS}user:a{END}{BOS}assistant:it is"),
    (
        TALK,
        {"continue_final_message": True, "add_generation_prompt": False},
        f"{BOS}user:a{END}{BOS}assistant:it is",
    ),
    (TALK, {"add_generation_prompt": False}, f"{BOS}user:a{END}{BOS}assistant:it is"),
    (TALK, {"continue_final_message": False}, f"{BOS}user:a{END}{BOS}assistant:it is{END}{BOS}"),
    (
        TALK,
        {"continue_final_message": False, "add_generation_prompt": True},
        f"{BOS}user:a{END}{BOS}assistant:it is{END}{BOS}",
    ),
    (
        TALK,
        {"continue_final_message": False, "add_generation_prompt": False},
        f"{BOS}user:a{END}{BOS}assistant:it is{END}",
    ),
    ([USER], {"continue_final_message": True}, f"{BOS}user:a"),
    ([USER], {"continue_final_message": False}, f"{BOS}user:a{END}{BOS}"),
    ([USER], {"add_generation_prompt": False}, f"{BOS}user:a{END}"),
    ([USER], {"add_generation_prompt": True}, f"{BOS}user:a{END}{BOS}"),
]


@pytest.mark.parametrize(("messages", "flags", "path"), FLAGS, ids=repr)
async def test_how_messages_end_is_said_by_two_flags(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    messages: list[dict[str, str]],
    flags: dict[str, Any],
    path: str,
) -> None:
    """The assistant's last words are closed where that is said in so many words, and not else; all
    routes with these flags agree."""
    ids = engine.tokenizer.encode(path, parse_special=True)
    body = {"messages": messages, **flags}
    await chat(client, max_tokens=1, **body)
    assert engine.queries[-1].tokens == tuple(ids)
    rendered = await client.post(f"{PATH}/render", json=body)
    assert rendered.json()["token_ids"] == ids
    assert (await client.post("/tokenize", json=body)).json()["tokens"] == ids


async def test_the_last_message_is_scored(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """With ``max_tokens`` 0: its tokens, out of one query, and nothing is decoded."""
    body: dict[str, Any] = {"max_tokens": 0, "logprobs": True, "top_logprobs": 1}
    choice = await choice_of(client, **body)
    (query,) = engine.queries
    assert choice["message"]["content"] == "it is"
    assert choice["finish_reason"] == "length"
    first, second = choice["logprobs"]["content"]
    assert second == entry(" is", 0.5, (" is", 0.5))
    assert (first["token"], len(first["top_logprobs"])) == ("it", 1)
    assert query.score_from == len(query.tokens) - 2
    for echo in (True, None):
        assert await choice_of(client, echo=echo, **body) == choice


async def test_an_echo_stands_before_what_is_generated(client: httpx.AsyncClient) -> None:
    """Its tokens are listed before the others, and counted as prompt."""
    answer = await chat(client, echo=True, logprobs=True, max_tokens=1)
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "it is yes"
    assert [token["token"] for token in choice["logprobs"]["content"]] == ["it", " is", " yes"]
    assert answer["usage"]["completion_tokens"] == 1
    plain = await chat(client, echo=True, max_tokens=1)
    assert plain["choices"][0]["logprobs"] is None
    assert plain["choices"][0]["message"] == choice["message"]


async def test_prompt_logprobs_are_of_all_messages(client: httpx.AsyncClient) -> None:
    """As vLLM has them, beside an echo or without one; the first token has none."""
    body: dict[str, Any] = {"prompt_logprobs": 2, "max_tokens": 0}
    echoed = await chat(client, logprobs=True, top_logprobs=1, **body)
    prompt = echoed["prompt_logprobs"]
    assert (len(prompt), prompt[0]) == (echoed["usage"]["prompt_tokens"], None)
    assert prompt[-1] == {
        "257": {"logprob": log(0.5), "rank": 1, "decoded_token": " is"},
        "258": {"logprob": log(0.25), "rank": 2, "decoded_token": " isn"},
    }
    listed = echoed["choices"][0]["logprobs"]["content"]
    assert (
        listed
        == (await choice_of(client, max_tokens=0, logprobs=True, top_logprobs=1))["logprobs"][
            "content"
        ]
    )
    answered = await chat(client, echo=False, **{**body, "max_tokens": 1})
    assert answered["prompt_logprobs"] == prompt
    assert answered["choices"][0]["message"]["content"] == " yes"
    asked = await chat(client, messages=[USER], **body)
    assert len(asked["prompt_logprobs"]) == asked["usage"]["prompt_tokens"]
    assert asked["choices"][0]["message"]["content"] == ""


async def test_masks_and_control_tokens_are_as_in_completions(client: httpx.AsyncClient) -> None:
    """Some tokens may not come, and those of control are hidden unless the text is to show them."""
    masked = await choice_of(client, logit_bias={"260": -100}, max_tokens=1, logprobs=True)
    assert masked["message"]["content"] == " no"
    assert masked["logprobs"]["content"][0]["logprob"] == log(0.25)
    only = await choice_of(client, allowed_token_ids=[262], max_tokens=1)
    assert only["message"]["content"] == " maybe"
    body: dict[str, Any] = {"ignore_eos": True, "max_tokens": 2}
    assert (await choice_of(client, **body))["message"]["content"] == " yes"
    shown = await choice_of(client, skip_special_tokens=False, **body)
    assert shown["message"]["content"] == f" yes{END}"


async def test_several_choices_come_best_first(client: httpx.AsyncClient) -> None:
    """``n`` beams, as in /v1/completions over the same tokens."""
    answer = await chat(client, n=2, max_tokens=2, logprobs=True)
    rendered = (await client.post(f"{PATH}/render", json={"messages": TALK})).json()
    body = {"prompt": rendered["token_ids"], "n": 2, "max_tokens": 2, "logprobs": 0}
    completion = (await client.post("/v1/completions", json=body)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    for choice, other in zip(answer["choices"], completion["choices"], strict=True):
        assert choice["message"]["content"] == other["text"]
        listed = [token["logprob"] for token in choice["logprobs"]["content"]]
        assert listed == other["logprobs"]["token_logprobs"]
    assert answer["usage"]["completion_tokens"] == completion["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"logprobs": True, "top_logprobs": 2},
        {"max_tokens": 1},
        {"echo": True, "logprobs": True},
        {"echo": True},
        {"max_tokens": 0, "logprobs": True, "top_logprobs": 1},
        {"max_tokens": 0},
        {"stop": "es", "logprobs": True},
        {"messages": [{"role": "assistant", "content": "a"}], "stop": ["cd"], "max_tokens": 2},
    ],
    ids=repr,
)
async def test_pieces_make_the_whole(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """Text, listed tokens and the reason are those of the plain answer."""
    whole = await choice_of(client, **body)
    chunks = await chunks_of(client, **body)
    assert glued(chunks) == whole
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [choice["delta"] for choice in chunks[-1]["choices"]] == [{}]
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["id"] == chunks[0]["id"]
        assert chunk["usage"] is None


async def test_the_bill_comes_last(client: httpx.AsyncClient) -> None:
    """With ``include_usage`` one more piece without choices has the plain answer's usage."""
    *chunks, last = await chunks_of(client, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == (await chat(client))["usage"]
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_what_fails_before_the_first_piece_has_its_status(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """A refusal is no stream."""
    await refused(client, stream=True, max_tokens=100)
    engine.refusal = EngineOverloaded("the queue is full", retry_after_s=2)
    response = await client.post(PATH, json={"messages": TALK, "stream": True})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "2")


async def test_what_fails_later_is_an_error_among_the_pieces() -> None:
    """A client of OpenAI raises at the first data with an ``error``; the end is marked anyway."""
    engine = FakeEngine(failures={" yes": NonFiniteLogits("nan")})
    async with client_of(shell_app(engine)) as client:
        text = (await client.post(PATH, json={"messages": TALK, "stream": True})).text
    assert '"code":"non_finite_logits"' in text
    assert text.endswith("data: [DONE]\n\n")


async def test_a_scored_message_that_fails_names_the_messages() -> None:
    """What the engine says of the path is said of the messages."""
    engine = FakeEngine(failures={" is": NonFiniteLogits("nan")})
    async with client_of(shell_app(engine)) as client:
        error = await refused(client, 500, max_tokens=0, logprobs=True)
    assert error["code"] == "non_finite_logits"


async def test_another_model(client: httpx.AsyncClient) -> None:
    """A model that is not served is 404, rendered or answered."""
    assert (await refused(client, 404, model="other"))["param"] == "model"
    for path in (f"{PATH}/render", "/v1/completions/render"):
        body = {"model": "other", **({"prompt": "a"} if "chat" not in path else {"messages": TALK})}
        response = await client.post(path, json=body)
        assert response.status_code == 404
        assert response.json()["error"]["param"] == "model"
