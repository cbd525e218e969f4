"""POST /v1/completions/render and /v1/chat/completions/render."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from model_runtime import EngineOverloaded
from tests.app.compat.test_deadlines import SlowTokenizer
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions/render", "/v1/chat/completions/render"
TALK = [{"role": "user", "content": "a"}]
PROMPTS: list[dict[str, Any]] = [
    {"prompt": "it is"},
    {"prompt": ["it is", f"no{END}"]},
    {"prompt": [[256, 257], [97]]},
    {"prompt": "it is", "add_special_tokens": True},
    {"prompt": "it", "add_bos": True, "parse_special": False},
]


@pytest.fixture
def engine() -> FakeEngine:
    """Its tokenizer adds BOS."""
    return FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    """The answer to a request that succeeds."""
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    return response.json()


@pytest.mark.parametrize("body", PROMPTS, ids=repr)
async def test_the_tokens_are_what_completions_feeds(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any]
) -> None:
    """For every prompt, in order; nothing is asked of the model."""
    rendered = await post(client, COMPLETIONS, **body)
    assert engine.queries == []
    await post(client, "/v1/completions", max_tokens=1, **body)
    assert [tuple(one["token_ids"]) for one in rendered] == [q.tokens for q in engine.queries]


async def test_a_chat_is_one_prompt(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """An object, where completions have a list."""
    rendered = await post(client, CHAT, messages=TALK, max_tokens=5, logprobs=True, top_logprobs=2)
    ids = engine.tokenizer.encode(f"{BOS}user:a{END}{BOS}", parse_special=True)
    assert rendered["request_id"].startswith("chatcmpl-")
    assert rendered | {"request_id": ""} == {
        "request_id": "",
        "token_ids": ids,
        "token_offsets": None,
        "features": None,
        "sampling_params": {
            "n": 1,
            "temperature": 0.0,
            "top_p": 1.0,
            "max_tokens": 5,
            "stop": [],
            "ignore_eos": False,
            "logprobs": 2,
            "prompt_logprobs": None,
            "seed": None,
            "logit_bias": None,
            "allowed_token_ids": None,
            "skip_special_tokens": True,
            "structured_outputs": None,
        },
        "model": "org/toy",
        "stream": False,
        "stream_options": None,
        "cache_salt": None,
        "priority": 0,
        "kv_transfer_params": None,
    }
    assert engine.queries == []


async def test_what_is_asked_of_each_prompt_is_told(client: httpx.AsyncClient) -> None:
    """A router passes it on."""
    body = {
        "prompt": ["it", "is"],
        "max_tokens": 7,
        "echo": True,
        "logprobs": 1,
        "stop": "x",
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_salt": "s",
        "priority": 3,
        "seed": 4,
    }
    first, second = await post(client, COMPLETIONS, **body)
    assert first["request_id"] != second["request_id"]
    assert (first["cache_salt"], first["priority"], first["stream"]) == ("s", 1, True)
    assert first["stream_options"]["include_usage"] is True
    asked = first["sampling_params"]
    assert (asked["max_tokens"], asked["stop"], asked["seed"]) == (7, ["x"], 4)
    assert (asked["logprobs"], asked["prompt_logprobs"]) == (1, 1)


@pytest.mark.parametrize(
    ("path", "body"), [(COMPLETIONS, {"prompt": "it is"}), (CHAT, {"messages": TALK})]
)
async def test_masks_and_formats_are_told(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    """Whoever generates from what is told keeps to them."""
    schema = {"type": "object"}
    told = {"logit_bias": {"97": -100}, "allowed_token_ids": [97, 98], "skip_special_tokens": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    found = await post(client, path, **body, **told, response_format=wanted)
    settings = (found[0] if path == COMPLETIONS else found)["sampling_params"]
    assert {name: settings[name] for name in told} == told
    assert settings["structured_outputs"] == {"json": schema}


async def test_a_full_queue_stands_in_nobodys_way(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """A router asks before it chooses a server, and the one it asks may be busy."""
    engine.refusal = EngineOverloaded("the queue is full", retry_after_s=2)
    await post(client, COMPLETIONS, prompt="it is")
    await post(client, CHAT, messages=TALK)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (COMPLETIONS, {"prompt": ""}, "prompt"),
        (COMPLETIONS, {"prompt": [[5], [272]]}, "prompt.1.0"),
        (COMPLETIONS, {"prompt": "a", "temperature": 1}, "temperature"),
        (COMPLETIONS, {"prompt": "a" * 90}, "prompt"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        (CHAT, {"messages": TALK, "max_tokens": 90}, "max_tokens"),
        (CHAT, {"messages": TALK, "echo": True}, "echo"),
    ],
    ids=repr,
)
async def test_what_could_not_be_answered_is_not_rendered(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], param: str
) -> None:
    """By the same names as where it is asked for."""
    response = await client.post(path, json=body)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == param


async def test_the_time_that_a_request_has_is_kept() -> None:
    """Rendering many prompts ends when nobody waits any more."""
    async with client_of(shell_app(FakeEngine(tokenizer=SlowTokenizer()))) as client:
        response = await client.post(
            CHAT, json={"messages": TALK * 20, "timeout_ms": 10, "max_tokens": 1}
        )
    assert response.status_code == 504, response.text
