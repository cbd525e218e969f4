"""What POST /v1/chat/completions does not serve is refused by name, and never ignored."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.compat.openai.chat import plan as chat_plan
from app.compat.openai.chat.request import ChatRequest
from model_runtime import InvalidQuery
from tests.app.compat.openai.chat.chat_calls import TALK, USER, choice_of, refused
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


def said(**fields: Any) -> dict[str, Any]:
    """Messages whose last one has these fields."""
    return {"messages": [USER, {"role": "assistant", "content": "it is", **fields}]}


def content(*parts: dict[str, Any]) -> dict[str, Any]:
    """A message of parts."""
    return {"messages": [{"role": "user", "content": list(parts)}]}


NEUTRAL: dict[str, Any] = {
    "temperature": 0,
    "top_p": 0.5,
    "frequency_penalty": 0.0,
    "presence_penalty": 0,
    "logit_bias": {},
    "n": 1,
    "user": "somebody",
    "safety_identifier": "somebody",
    "prompt_cache_key": "somebody",
    "seed": 7,
    "stream": False,
    "echo": False,
    "stop": [],
    "logprobs": False,
    "top_logprobs": 0,
    "ignore_eos": False,
    "response_format": {"type": "text"},
    "stream_options": None,
    "continue_final_message": True,
    "add_generation_prompt": False,
    **{name: neutral[-1] for name, neutral in ChatRequest.noop_values.items() if neutral},
}
IN_MESSAGES: dict[str, Any] = {
    "name": None,
    "refusal": None,
    "audio": None,
    "annotations": [],
    "function_call": None,
    "tool_calls": [],
    "tool_call_id": None,
    "reasoning_content": None,
    "of_a_later_version": None,
}


@pytest.mark.parametrize("field", NEUTRAL)
async def test_neutral_values_and_nulls_change_nothing(
    client: httpx.AsyncClient, field: str
) -> None:
    """A field at its neutral value, or null, gives the answer that there is without it."""
    plain = await choice_of(client)
    for value in (NEUTRAL[field], None):
        assert await choice_of(client, **{field: value}) == plain


async def test_a_message_that_an_answer_was_is_taken(client: httpx.AsyncClient) -> None:
    """Clients send back what they got, with all its empty fields."""
    assert await choice_of(client, **said(**IN_MESSAGES)) == await choice_of(client)
    for name in IN_MESSAGES:
        assert await choice_of(client, **said(**{name: None})) == await choice_of(client)


TOOL = {"type": "function", "function": {"name": "f", "arguments": "{}"}, "id": "1"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0.9, "n": 2}, "top_p"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
        ({"presence_penalty": -2}, "presence_penalty"),
        ({"logit_bias": {"5": -50}}, "logit_bias.5"),
        ({"logit_bias": {"999": -100}}, "logit_bias"),
        ({"allowed_token_ids": [999]}, "allowed_token_ids.0"),
        ({"allowed_token_ids": [5], "logit_bias": {"5": -100}}, "allowed_token_ids"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 0, "stream": True}, "stream"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 1001}, "top_logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 60}, "max_tokens"),
        ({"max_completion_tokens": 60}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
        ({"max_tokens": 0, "echo": False}, "max_tokens"),
        ({"max_completion_tokens": 0, "echo": False}, "max_completion_tokens"),
        ({"max_tokens": 0, "n": 2}, "n"),
        ({"max_tokens": 0, "messages": [USER]}, "max_tokens"),
        ({"max_tokens": 0, "continue_final_message": False}, "max_tokens"),
        ({"echo": True, "messages": [USER]}, "echo"),
        ({"echo": 1}, "echo"),
        ({"add_generation_prompt": True}, "add_generation_prompt"),
        (
            {"add_generation_prompt": True, "continue_final_message": True},
            "continue_final_message",
        ),
        ({"n": 0}, "n"),
        ({"n": 513}, "n"),
        ({"n": 65, "response_format": {"type": "json_object"}}, "n"),
        ({"stream": True, "n": 2}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stop": [""]}, "stop.0"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"seed": 2**63 + 1}, "seed"),
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"audio": {"voice": "a", "format": "wav"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"structured_outputs": {"json": {}}}, "structured_outputs"),
        ({"top_k": 5}, "top_k"),
        ({"bogus": 1}, "bogus"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "text", "json_schema": {"name": "a", "schema": {}}}},
            "response_format.json_schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"title": "x" * 70_000}},
                }
            },
            "response_format.json_schema.schema",
        ),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "it is"}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        ({"messages": [USER, {"role": "function", "content": "a"}]}, "messages.1.role"),
        ({"messages": [{"role": "user", "content": "x" * 90}]}, "messages"),
        (said(tool_calls=[TOOL]), "messages.1.tool_calls"),
        (said(tool_call_id="1"), "messages.1.tool_call_id"),
        (said(function_call={"name": "f"}), "messages.1.function_call"),
        (said(name="Bela"), "messages.1.name"),
        (said(refusal="no"), "messages.1.refusal"),
        (said(reasoning="hm"), "messages.1.reasoning"),
        (said(bogus=1), "messages.1.bogus"),
        (content(), "messages.0.content"),
        (content({"type": "image_url", "image_url": {"url": "a"}}), "messages.0.content.0"),
        (content({"type": "text", "text": "a"}, {"type": "input_audio"}), "messages.0.content.1"),
        (content({"type": "text"}), "messages.0.content.0.text"),
        (content({"type": "text", "text": "a", "x": 1}), "messages.0.content.0.x"),
        (content(*[{"type": "text", "text": "a"}] * 257), "messages.0.content"),
    ],
    ids=lambda one: str(one)[:60],
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """Whatever is wrong, the error object names the field."""
    error = await refused(client, **body)
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert error["type"] == "invalid_request_error"


CALL = {"role": "assistant", "content": None, "tool_calls": [TOOL]}


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (
            {"role": "tool", "content": "a", "tool_call_id": "1"},
            "messages.1.role: tool is refused: tools are not called here",
        ),
        (
            CALL,
            "messages.1.content: should be text or parts of type text: messages of tool "
            "calls alone, without content, are not served",
        ),
    ],
    ids=["a tool", "a call"],
)
async def test_the_turns_of_tools_are_refused_as_such(
    client: httpx.AsyncClient, message: dict[str, Any], complaint: str
) -> None:
    """What is said first is why, in words of its own."""
    error = await refused(client, messages=[USER, message])
    assert error["message"].startswith(complaint)
    assert "valid string" not in error["message"]


async def test_what_is_too_much_to_list_is_refused(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated and echoed tokens times their rivals, and the operator's own bound."""
    listed = {"logprobs": True, "top_logprobs": 10, "max_tokens": 8}
    monkeypatch.setattr(chat_plan, "MAX_TOP_ENTRIES", 79)
    assert (await refused(client, **listed))["param"] == "top_logprobs"
    monkeypatch.setattr(chat_plan, "MAX_TOP_ENTRIES", 80)
    monkeypatch.setattr(chat_plan, "MAX_COMPLETION_ENTRIES", 99)
    await choice_of(client, **listed)
    assert (await refused(client, echo=True, **listed))["param"] == "top_logprobs"
    monkeypatch.setattr(chat_plan, "MAX_TOKEN_ENTRIES", 7)
    assert (await refused(client, logprobs=True, max_tokens=8))["param"] == "logprobs"
    monkeypatch.setattr(chat_plan, "MAX_COMPLETION_TOKENS", 15)
    assert (await refused(client, n=2, max_tokens=8))["param"] == "max_tokens"
    monkeypatch.setattr(chat_plan, "MAX_COMPLETION_ENTRIES", 41)
    assert (await refused(client, max_tokens=1, prompt_logprobs=2))["param"] == "prompt_logprobs"
    async with client_of(shell_app(FakeEngine(), max_top_logprobs=5)) as bounded:
        assert (await refused(bounded, prompt_logprobs=6))["param"] == "prompt_logprobs"
        for more in ({}, {"max_tokens": 0}):
            error = await refused(bounded, logprobs=True, top_logprobs=6, **more)
            assert error["param"] == "top_logprobs"


async def test_a_model_without_a_chat_template_says_so(engine: FakeEngine) -> None:
    """The messages are what cannot be served."""

    def render_chat(*_: object, **__: object) -> str:
        raise InvalidQuery("the model has no chat template", param="messages")

    engine.tokenizer.render_chat = render_chat  # type: ignore[method-assign]
    async with client_of(shell_app(engine)) as client:
        error = await refused(client, messages=TALK)
    assert (error["param"], error["code"]) == ("messages", "invalid_value")
