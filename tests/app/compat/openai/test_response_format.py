"""``response_format`` of POST /v1/completions: JSON by a grammar, as vLLM has it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app.decoding import plan as decode_plan
from model_runtime import grammar_installed
from tests.app.compat.openai.completion_calls import choice_of, complete, glued, pieces_of, refused
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

needs_grammar = pytest.mark.skipif(not grammar_installed(), reason="the grammar extra is optional")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "id": {"type": "integer", "maximum": 9}},
    "required": ["ok", "id"],
    "additionalProperties": False,
}
RECORD = {"type": "json_schema", "json_schema": {"name": "record", "schema": SCHEMA}}


class Blanks(dict[str, dict[str, float]]):
    """A law by which blanks are likeliest everywhere."""

    def get(self, key: object, default: object = None) -> Any:
        """The same for every token."""
        return {" ": 0.4, "\n": 0.3, "\t": 0.2}


@pytest.fixture
def engine() -> FakeEngine:
    """Left to itself it writes nothing but blanks."""
    return FakeEngine(Blanks(), max_model_len=256)


@needs_grammar
@pytest.mark.parametrize("more", [{}, {"best_of": 3}], ids=repr)
async def test_json_that_a_schema_allows(client: httpx.AsyncClient, more: dict[str, Any]) -> None:
    """A model that prefers blanks writes it too, in so many tokens as JSON of that size has."""
    body: dict[str, Any] = {"prompt": "a", "max_tokens": 50, "response_format": RECORD, **more}
    choice = await choice_of(client, **body)
    assert choice["finish_reason"] == "stop"
    value = json.loads(choice["text"])
    assert value.keys() == {"ok", "id"} and isinstance(value["ok"], bool) and value["id"] <= 9
    blanks = len(choice["text"]) - len("".join(choice["text"].split()))
    assert blanks <= len('{"ok":true,"id":1}')
    if not more:
        assert glued(await pieces_of(client, **body), 0) == choice


@needs_grammar
async def test_any_object(client: httpx.AsyncClient) -> None:
    """It begins one, whatever the model would rather write; one token is no exception."""
    for max_tokens in (1, 3):
        body: dict[str, Any] = {"prompt": "a", "max_tokens": max_tokens}
        choice = await choice_of(client, **body, response_format={"type": "json_object"})
        assert choice["text"].startswith("{")
        assert choice["finish_reason"] == "length"


@needs_grammar
async def test_it_goes_with_a_mask(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Both hold: without blanks among the tokens there are none."""
    allowed = list(engine.tokenizer.encode('{"okid:truefalse,}0123456789'))
    allowed.append(engine.tokenizer.eos_token_id)
    body: dict[str, Any] = {"prompt": "a", "max_tokens": 50, "response_format": RECORD}
    choice = await choice_of(client, **body, allowed_token_ids=allowed)
    assert choice["text"].split() == [choice["text"]]
    assert json.loads(choice["text"]).keys() == {"ok", "id"}


@needs_grammar
@pytest.mark.parametrize(
    ("written", "named"),
    [(RECORD, "response_format.json_schema.schema"), ({"type": "json_object"}, "response_format")],
    ids=["a schema", "any object"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_mask_that_leaves_no_json_is_at_fault(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    written: dict[str, Any],
    named: str,
    stream: bool,
) -> None:
    """Without a brace nothing can begin: the mask is named, and the format beside it."""
    begin, letter, end = *engine.tokenizer.encode("{a"), engine.tokenizer.eos_token_id
    body: dict[str, Any] = {"max_tokens": 9, "response_format": written, "stream": stream}
    chat = {"messages": [{"role": "user", "content": "a"}]}
    for mask, field in [
        ({"allowed_token_ids": [letter, end]}, "allowed_token_ids"),
        ({"logit_bias": {str(begin): -100}}, "logit_bias"),
    ]:
        for path, prompt in [("/v1/completions", {"prompt": "a"}), ("/v1/chat/completions", chat)]:
            response = await client.post(path, json={**prompt, **body, **mask})
            assert response.status_code == 422, response.text
            error = response.json()["error"]
            assert (error["param"], error["code"]) == (field, "no_completion")
            assert f"; {named} narrows it too" in error["message"]


@needs_grammar
async def test_a_schema_is_told_of_what_is_wrong_with_it(client: httpx.AsyncClient) -> None:
    """Whatever mask there is beside it, and where there is none."""
    never = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#/nowhere"}}}
    for mask in ({}, {"allowed_token_ids": [5]}):
        error = await refused(client, prompt="a", response_format=never, **mask)
        assert error["param"] == "response_format.json_schema.schema", mask


async def test_text_is_anything(client: httpx.AsyncClient) -> None:
    """As without the field."""
    plain = (await complete(client, prompt="a"))["choices"]
    for kind in ({"type": "text"}, None):
        assert (await complete(client, prompt="a", response_format=kind))["choices"] == plain


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": RECORD, "n": 65}, "n"),
        ({"response_format": RECORD, "best_of": 65}, "best_of"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str
) -> None:
    """Other kinds, and more beams than have masks."""
    assert (await refused(client, prompt="a", **body))["param"] == param
    assert engine.queries == []


@needs_grammar
async def test_what_is_no_schema_is_refused_by_name(client: httpx.AsyncClient) -> None:
    """With the library's reason."""
    bad = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
    error = await refused(client, prompt="a", response_format=bad)
    assert error["param"] == "response_format.json_schema.schema"


async def test_without_the_extra_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """501, naming the field."""
    monkeypatch.setattr(decode_plan, "grammar_installed", lambda: False)
    async with client_of(shell_app(FakeEngine())) as client:
        error = await refused(client, 501, prompt="a", response_format={"type": "json_object"})
        assert error["param"] == "response_format"
