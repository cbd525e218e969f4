"""What POST /v1/decisions does not serve is refused by name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.decisions import plan as decision_plan
from model_runtime import NonFiniteLogits, PathTooLong
from tests.app.compat.decisions.decision_calls import (
    LAW,
    ChatTokenizer,
    chat_engine,
    choice,
    decide,
    plain_engine,
    predicate,
    refusal,
    score,
)
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
FILE = {"type": "input_file", "file_id": "file-1"}


@pytest.fixture
def engine() -> FakeEngine:
    """The law of letters, with a chat template."""
    return chat_engine()


def deep(levels: int) -> dict[str, Any]:
    """An object in an object, so many of them."""
    return {"a": deep(levels - 1)} if levels > 1 else {}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input": [{"role": "user", "content": [IMAGE]}]}, "input.0.content.0"),
    ({"input": [{"type": "function_call", "call_id": "1", "name": "f"}]}, "input.0"),
    ({"input": [{"type": "custom_tool_call_output", "call_id": "1", "output": ""}]}, "input.0"),
    ({"input": [{"role": "user", "content": [FILE]}]}, "input.0.content.0"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
    ({"input": [{"role": "user", "content": [{"type": "audio"}]}]}, "input.0.content.0"),
    (
        {"input": [{"role": "system", "content": [{"type": "input_json", "data": {}}]}]},
        "input.0.content",
    ),
    ({"input": [{"role": "user", "content": "x", "phase": "commentary"}]}, "input.0.phase"),
    ({"input": 5}, "input"),
    ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options.mode"),
    ({"prompt_cache_options": {"ttl": "1h"}}, "prompt_cache_options.ttl"),
    ({"prompt_cache_key": "a", "cache_salt": "b"}, "prompt_cache_key"),
    ({"temperature": 1.0}, "temperature"),
    ({"questions": []}, "questions"),
    ({"questions": [predicate()] * 401}, "questions"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED)
async def test_what_is_not_served_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """Images, tools, other roles, explicit caching and unknown keys: a 422 that names the field."""
    error = await refusal(client, **{"questions": [predicate()], **body})
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(("part", "why"), [(IMAGE, "images"), (FILE, "files")])
async def test_a_part_that_is_no_text_is_refused_by_its_kind(
    client: httpx.AsyncClient, part: dict[str, Any], why: str
) -> None:
    """The message names the kind of the part, and says that such are not read."""
    body = {"input": [{"role": "user", "content": [part]}], "questions": [predicate()]}
    error = await refusal(client, **body)
    assert f"{part['type']} is refused: {why} are not read here" in error["message"]


BAD_QUESTIONS: list[tuple[dict[str, Any], str]] = [
    ({"type": "essay", "instructions": "x"}, "questions.1"),
    (predicate(instructions=[IMAGE]), "questions.1.instructions.0"),
    (predicate(instructions=None), "questions.1.instructions"),
    (predicate(choices=[]), "questions.1.choices"),
    (choice("a"), "questions.1.choices"),
    (choice("a", "a"), "questions.1.choices"),
    (choice("a", ""), "questions.1.choices.1.value"),
    (choice("a", " \n"), "questions.1.choices.1.value"),
    (score("a", " "), "questions.1.levels.1.label"),
    (choice(*map(str, range(256))), "questions.1.choices"),
    (choice(choices=[{"value": "a"}, {"value": 1}]), "questions.1.choices.1.value"),
    (score("a"), "questions.1.levels"),
    (score("a", "b", "a"), "questions.1.levels"),
    (
        predicate(instructions=[{"type": "input_json", "data": deep(33)}]),
        "questions.1.instructions.0.data",
    ),
    (
        predicate(instructions=[{"type": "input_json", "data": {"a": [0] * 10_000}}]),
        "questions.1.instructions.0.data",
    ),
    (
        predicate(instructions=[{"type": "input_json", "data": {"a": "x" * (256 << 10)}}]),
        "questions.1.instructions.0.data",
    ),
]


@pytest.mark.parametrize(("question", "param"), BAD_QUESTIONS)
async def test_a_bad_question_is_named_by_its_index(
    client: httpx.AsyncClient, question: dict[str, Any], param: str
) -> None:
    """One bad question refuses the request and is named by its place."""
    assert (await refusal(client, predicate(), question))["param"] == param


async def test_json_at_its_bounds_is_taken(client: httpx.AsyncClient) -> None:
    """As deep as the API allows is not too deep."""
    part = {"type": "input_json", "data": deep(32)}
    await decide(client, predicate(instructions=[part]))


async def test_neutral_values_are_accepted(client: httpx.AsyncClient) -> None:
    """What the client may send without a wish, nulls included, changes nothing."""
    neutral = {
        "model": "org/toy",
        "prompt_cache_key": None,
        "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
        "safety_identifier": "somebody",
    }
    text = {"type": "input_text", "text": "it", "prompt_cache_breakpoint": {"mode": "explicit"}}
    asked = choice(name=None)
    messages = [{"role": "user", "content": [text]}]
    with_them = await decide(client, asked, input=messages, **neutral)
    without = await decide(client, asked, input=[{"role": "user", "content": "it"}])
    assert with_them["answers"] == without["answers"]


async def test_another_model_is_not_served(client: httpx.AsyncClient) -> None:
    """The model's name is a check."""
    error = await refusal(client, predicate(), status=404, model="gpt-6-luna")
    assert error["code"] == "model_not_found"


async def test_the_cache_key_is_a_salt(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """``prompt_cache_key`` and ``cache_salt`` are two names for what may be shared."""
    await decide(client, predicate(), prompt_cache_key="mine")
    await decide(client, predicate(), cache_salt="yours")
    assert [options.cache_salt for options in engine.options] == ["/mine", "/yours"]


async def test_an_input_that_fills_the_model_is_too_long() -> None:
    """An input that leaves no room for a question is refused by name."""
    async with client_of(shell_app(chat_engine(max_model_len=32))) as client:
        error = await refusal(client, predicate(), input="long " * 20)
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")


async def test_all_paths_together_are_bounded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be held at once is bounded; the question that is too many is named."""
    monkeypatch.setattr(decision_plan, "MAX_PATH_TOKENS", 2_000)
    await decide(client, predicate())
    error = await refusal(client, *[predicate()] * 10)
    name, place = error["param"].split(".")
    assert (name, error["code"]) == ("questions", "invalid_value")
    assert 1 <= int(place) < 9
    await decide(client, *[predicate()] * int(place))


@pytest.mark.parametrize(
    ("failure", "status", "param"),
    [(PathTooLong("too long"), 422, "questions.1"), (NonFiniteLogits("nan"), 500, None)],
)
async def test_an_option_that_fails_fails_the_request(
    failure: Exception, status: int, param: str | None
) -> None:
    """No answer is left out: the first failure is that of all, and names its question."""
    engine = FakeEngine(
        LAW, tokenizer=ChatTokenizer(), failures={"x": failure}, max_model_len=1 << 16
    )
    async with client_of(shell_app(engine)) as client:
        error = await refusal(client, predicate(), choice("a", "x"), status=status)
    assert error["param"] == param


async def test_an_option_of_plain_text_is_one_line() -> None:
    """A line break would end the answer of a model without a chat template."""
    async with client_of(shell_app(plain_engine())) as client:
        error = await refusal(client, predicate(), choice("a", "a\nb"))
    assert error["param"] == "questions.1"


@pytest.mark.parametrize("template", ["{content}{content}", "nothing"])
async def test_a_template_that_shows_no_message_once_is_refused(
    monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient, template: str
) -> None:
    """A chat template must show the message as it is, or there is no prompt to speak of."""
    monkeypatch.setattr(
        ChatTokenizer,
        "render_chat",
        lambda _, turns: template.replace("{content}", turns[0]["content"]),
    )
    assert (await refusal(client, predicate()))["param"] == "input"


async def test_a_chat_model_without_an_end_is_refused() -> None:
    """Without an end token an option cannot be closed."""
    async with client_of(shell_app(chat_engine(end_token_ids=()))) as client:
        assert (await refusal(client, predicate()))["param"] == "model"
