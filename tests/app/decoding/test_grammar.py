"""POST /v1/decode limited by a regular expression or a JSON schema, on a real (tiny) model."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.decoding import plan as decode_plan
from app.requests import model_card as model_cards
from model_runtime import Engine, EngineConfig, grammar_installed
from tests.app.calls import call, refusal
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

needs_grammar = pytest.mark.skipif(not grammar_installed(), reason="the grammar extra is optional")


@pytest.fixture
async def client(tiny_folder: TinyFolder, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A server of a tiny model."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=1 << 20)
    async with client_of(shell_app(Engine.load(config))) as client:
        yield client


@needs_grammar
@pytest.mark.parametrize("strategy", ["greedy", "beam", "exact"])
@pytest.mark.parametrize("append_eos", [None, False])
async def test_the_whole_text_matches(
    client: httpx.AsyncClient, strategy: str, append_eos: bool | None
) -> None:
    """Every strategy stays within the expression, with and without an end token."""
    body: dict[str, Any] = {"regex": "(19|20)[0-9]{2}", "append_eos": append_eos}
    answer = await call(client, "decode", strategy=strategy, max_tokens=8, **body)
    (sequence,) = answer["sequences"]
    assert re.fullmatch("(19|20)[0-9]{2}", sequence["text"])
    assert sequence["finish_reason"] == "stop"
    assert "candidate" not in sequence


@needs_grammar
async def test_a_grammar_is_streamed_and_scored_alike(client: httpx.AsyncClient) -> None:
    """The pieces are the text, and the total is what /v1/score says of the ids."""
    schema = {"enum": ["yes", "no", "that isn't it"]}
    body = {"context": "Is it?", "json_schema": schema, "max_tokens": 60, "stream": True}
    response = await client.post("/v1/decode", json=body)
    data = [line for line in response.text.splitlines() if line.startswith("data: ")]
    *tokens, result = [json.loads(line.removeprefix("data: ")) for line in data]
    (sequence,) = result["sequences"]
    assert "".join(token["text"] for token in tokens) == sequence["text"]
    assert json.loads(sequence["text"]) in schema["enum"]
    scored = await call(client, "score", context="Is it?", candidates=[sequence["token_ids"]])
    assert scored["results"][0]["logprob"] == sequence["logprob"]


@needs_grammar
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"regex": "("}, "regex"),
        ({"regex": "(?=a)"}, "regex"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema"),
        ({"regex": "[a&&b]"}, "regex"),
        ({"regex": "[a&&b]", "stream": True}, "regex"),
        ({"regex": "[a&&b]", "strategy": "exact"}, "regex"),
        ({"regex": "a", "append_eos": True, "ignore_eos": True}, "append_eos"),
    ],
    ids=repr,
)
async def test_what_does_not_compile_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """Nonsense, and what no text can match, is the constraint's fault and nobody else's."""
    assert (await refusal(client, "decode", **body))["param"] == param


async def test_without_the_extra_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """501 names the field and the operator's part in it, and /v1/models says it beforehand."""
    monkeypatch.setattr(decode_plan, "grammar_installed", lambda: False)
    monkeypatch.setattr(model_cards, "grammar_installed", lambda: False)
    async with client_of(shell_app(FakeEngine())) as client:
        for field, value in (("regex", "a"), ("json_schema", {"type": "string"})):
            error = await refusal(client, "decode", 501, **{field: value})
            assert (error["code"], error["param"]) == ("grammar_not_installed", field)
        (card,) = (await client.get("/v1/models")).json()["data"]
        assert card["limits"]["grammar"] is False


@needs_grammar
async def test_a_dead_end_of_one_strategy_leaves_the_others(client: httpx.AsyncClient) -> None:
    """Greedy may come to where nothing is allowed; beside it stands what the search found."""
    body = {"regex": "no|yes", "min_tokens": 3, "max_tokens": 6, "num_beams": 1}
    contexts = ["a", "Is it?", "once upon", "1 2 3", "yes or no", "the", "What", "So", "X", "that"]
    dead = 0
    for context in contexts:
        answer = await call(client, "decode", context=context, compare=["greedy", "exact"], **body)
        greedy, exact = answer["compared"]
        assert exact["sequence"]["text"] in ("no", "yes")
        if "sequence" not in greedy:
            dead += 1
            assert greedy["reason"] == "no completion was found"
            error = await refusal(client, "decode", context=context, **body | {"num_beams": None})
            assert error["param"] == "regex"
    assert dead


@needs_grammar
async def test_wide_beams_go_without_a_grammar(client: httpx.AsyncClient) -> None:
    """Each beam needs a mask of its own, so there are fewer."""
    error = await refusal(client, "decode", strategy="beam", num_beams=65, regex="a+")
    assert error["param"] == "num_beams"
    assert "64" in error["message"]


class Blanks(dict[str, dict[str, float]]):
    """A law by which blanks are likeliest everywhere."""

    def get(self, key: object, default: object = None) -> Any:
        """The same for every token."""
        return {" ": 0.4, "\n": 0.3, "\t": 0.2}


RECORD = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "maximum": 99},
        "ok": {"type": "boolean"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["id", "ok", "tags"],
    "additionalProperties": False,
}


@needs_grammar
@pytest.mark.parametrize("strategy", ["greedy", "beam"])
async def test_a_model_that_prefers_blanks_writes_json(strategy: str) -> None:
    """It gets one at each place between two parts, and goes on with the value."""
    engine = FakeEngine(Blanks(), max_model_len=256)
    async with client_of(shell_app(engine)) as client:
        body: dict[str, Any] = {"strategy": strategy, "json_schema": RECORD, "max_tokens": 60}
        (sequence,) = (await call(client, "decode", context="a", **body))["sequences"]
    text = sequence["text"]
    assert sequence["finish_reason"] == "stop"
    assert json.loads(text).keys() == RECORD["properties"].keys()
    assert not re.search(r"\s\s", text)
    assert len(text) - len("".join(text.split())) <= len(
        re.findall(r'[{}\[\]:,]|"[^"]*"|\w+', text)
    )


@needs_grammar
async def test_anchors_around_an_expression(client: httpx.AsyncClient) -> None:
    """The same completion with them as without; inside they are refused."""
    bare = await call(client, "decode", regex="(19|20)[0-9]{2}", max_tokens=8)
    anchored = await call(client, "decode", regex="^(19|20)[0-9]{2}$", max_tokens=8)
    assert anchored["sequences"] == bare["sequences"]
    error = await refusal(client, "decode", regex="(^19|20)[0-9]{2}")
    assert error["param"] == "regex"
    assert "^ at character 2 stands inside" in error["message"]
    price = await call(client, "decode", regex=r"\$[0-9]{2}$", max_tokens=8)
    assert re.fullmatch(r"\$[0-9]{2}", price["sequences"][0]["text"])
