"""/openapi.json says what the server does: bounds, conditions, streams, statuses, examples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from app.compat.decisions.input import InputMessage
from app.compat.decisions.request import DecisionRequest
from app.compat.generative_scoring.label_schemas import GenerativeScoringRequest, LabelScoreRequest
from app.compat.openai.chat.messages import ChatMessage
from app.compat.openai.chat.request import ChatRequest
from app.compat.openai.request import CompletionRequest
from app.compat.openai.response_format import ResponseFormat
from app.compat.openai.tokenizer_schemas import TokenizeRequest
from app.compat.rerank.request import RerankV1Request, RerankV2Request, TeiRequest
from app.compat.systemone.request import SystemOneRequest
from app.errors.table import ERROR_SPECS
from app.main import create_app
from app.schemas.audit import AuditRequest
from app.schemas.decode import DecodeRequest
from app.schemas.request import Request
from app.schemas.score import ScoreRequest
from app.settings import Settings
from model_runtime import InvalidQuery
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine
from tests.json_schema import allows

DOCUMENT: dict[str, Any] = json.loads(json.dumps(create_app(Settings()).openapi()))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    f"{method} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
WORK = sorted(name for name, operation in OPERATIONS.items() if "requestBody" in operation)
NAMES_CALIBRATIONS = {"post /v1/calibrations", "post /v1/decisions", "post /v1/systemone"}
TEI_LOSES = {500, 504}
"""What text-embeddings-inference has 424 for."""


@pytest.mark.parametrize("name", WORK)
def test_a_route_that_works_tells_every_status(name: str) -> None:
    """All that the table has may come, but for 501, which is of grammars alone, and for 403 and
    409, which are of calibrations."""
    told = {int(status) for status in OPERATIONS[name]["responses"]}
    may = {row.status for row in ERROR_SPECS.values()} | {408}
    lost = TEI_LOSES if name == "post /rerank" else set()
    assert may - {403, 409, 501} - lost <= told
    assert (501 in told) is (name in ("post /v1/decode", "post /v1/chat/completions"))
    assert (403 in told) is (name == "post /v1/calibrations")
    assert (409 in told) is (name in NAMES_CALIBRATIONS)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_failure_has_a_shape(name: str) -> None:
    """No status is told without the body that comes with it."""
    for status, response in OPERATIONS[name]["responses"].items():
        if int(status) >= 400:
            schema = response["content"]["application/json"]["schema"]
            assert schema["$ref"].rsplit("/", 1)[1] in SCHEMAS


def test_a_look_up_tells_what_may_come_in_its_way() -> None:
    """A key may be missing, a body too large, the model not loaded, the server at fault."""
    for name in set(OPERATIONS) - set(WORK):
        told = set(OPERATIONS[name]["responses"])
        assert {"200", "413", "500"} <= told, name
        assert ("401" in told) is not name.startswith("get /health"), name


def test_every_event_of_a_stream_is_an_object_with_data() -> None:
    """The document describes events one by one, not a text."""
    for name, events in (
        ("post /v1/decode", 3),
        ("post /v1/completions", 3),
        ("post /v1/chat/completions", 3),
    ):
        stream = OPERATIONS[name]["responses"]["200"]["content"]["text/event-stream"]
        kinds = stream["itemSchema"].get("oneOf") or stream["itemSchema"]["anyOf"]
        assert "schema" not in stream and len(kinds) == events
        for kind in kinds:
            assert kind["type"] == "object" and "data" in kind["properties"]
            found = kind["properties"]["data"].get("contentSchema", {})
            assert found.get("$ref", "#/components/schemas/TopLogprob")[21:] in SCHEMAS
        for line in stream["example"].splitlines():
            if line.startswith("data: {") and "..." not in line:
                events_named = [kind["properties"]["data"]["contentSchema"] for kind in kinds]
                data = json.loads(line.removeprefix("data: "))
                assert any(allows(schema, data, DOCUMENT) for schema in events_named)


def _numbers(part: Any) -> Iterator[float]:
    for key, value in part.items() if isinstance(part, dict) else ():
        if key in ("maximum", "minimum"):
            yield value
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for one in inner:
        yield from _numbers(one)


def test_no_bound_is_rounded() -> None:
    """The document's are the models' own, to the last digit, and whole ones are integers."""
    for model in (CompletionRequest, GenerativeScoringRequest, RerankV1Request, ScoreRequest):
        bounds = list(_numbers(model.model_json_schema()["properties"]))
        told = list(_numbers(SCHEMAS[model.__name__]["properties"]))
        assert bounds and sorted(told) == sorted(bounds)
        assert all(isinstance(bound, int) for bound in told if float(bound).is_integer())


def test_examples_are_what_the_document_allows() -> None:
    """Of requests and answers, nulls included."""
    shown = 0
    for schema in SCHEMAS.values():
        for example in schema.get("examples", ()):
            assert allows(schema, example, DOCUMENT), example
            shown += 1
    assert shown > 25


CONTEXT = {"context": "a"}
SCORE = {**CONTEXT, "candidates": ["b"]}
LABELS = {"query": "a", "items": ["b"], "label_token_ids": [5]}
DOCUMENTS = {"query": "a", "documents": ["b"]}
MESSAGES = {"messages": [{"role": "user", "content": "a"}]}
JSON = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
QUESTIONS = [{"type": "predicate", "instructions": "a"}]
NOUL = {"type": "noul", "instructions": "a"}


def _noul(**fields: Any) -> dict[str, Any]:
    return {"questions": {"a": {"type": "noul", **fields}}}


# fmt: off
CASES: list[tuple[type[Request], dict[str, Any], list[dict[str, Any]]]] = [
    (ScoreRequest, SCORE, [
        {"normalization": "pmi"}, {"normalization": "pmi", "pmi_context": "c"},
        {"pmi_context": "c"}, {"pmi_context": None}, {"gnmt_alpha": 1},
        {"normalization": "gnmt"}, {"normalization": "gnmt", "gnmt_alpha": 1},
        {"normalization": "calibrated"},
        {"normalization": "calibrated", "calibration_contexts": ["c"]},
        {"max_expansions": 5}, {"max_expansions": 5, "boundary": "marginal"},
        {"max_expansions": 5, "boundary": "joint"},
        {"candidates": [[2**63]]}, {"candidates": [[2**63 + 2**12]]},
        {"candidates": [[-(2**63)]]}, {"unknown": 1}, {"append_eos": "yes"},
    ]),
    (DecodeRequest, CONTEXT, [
        {"num_beams": 4}, {"num_beams": 1}, {"num_beams": 4, "strategy": "beam"},
        {"num_beams": 4, "compare": ["greedy", "beam"]}, {"feasible": "any"},
        {"num_beams": 100, "strategy": "beam", "regex": "a"}, {"feasible": "ended"},
        {"early_stopping": True}, {"early_stopping": True, "strategy": "beam"},
        {"length_penalty": 1}, {"length_penalty": 2}, {"max_expansions": 9},
        {"compare": ["greedy", "greedy"]}, {"compare": ["greedy", "exact"], "strategy": "exact"},
        {"threshold": 0.5}, {"threshold": 0.5, "strategy": "exact"},
        {"threshold": 0.5, "strategy": "exact", "length_penalty": 1.5},
        {"threshold": 0.5, "strategy": "exact", "length_penalty": 0},
        {"threshold": 0.5, "compare": ["greedy", "exact"]},
        {"num_return_sequences": 2}, {"num_return_sequences": 2, "strategy": "exact"},
        {"num_return_sequences": 2, "compare": ["beam", "exact"]},
        {"stream": True}, {"stream": True, "strategy": "beam"}, {"stream": True, "strategy": None},
        {"stream": True, "compare": ["greedy", "beam"]}, {"append_eos": True},
        {"append_eos": True, "candidates": ["b"]}, {"append_eos": False},
        {"regex": "a", "candidates": ["b"]}, {"regex": "a", "json_schema": {}}, {"regex": "a"},
    ]),
    (CompletionRequest, {"prompt": "a"}, [
        {"max_tokens": 0}, {"max_tokens": 0, "echo": True},
        {"max_tokens": 0, "echo": True, "n": 2}, {"stream": True, "n": 2},
        {"stream": True, "n": 1, "best_of": None}, {"stream_options": {}},
        {"stream_options": {}, "stream": True}, {"top_p": 0.5}, {"top_p": 0.5, "n": 2},
        {"top_p": 1, "best_of": 2}, {"temperature": 0.5}, {"temperature": 0}, {"suffix": "b"},
        {"suffix": ""}, {"logit_bias": {"5": 1.0}}, {"logit_bias": {}},
        {"frequency_penalty": -1}, {"presence_penalty": 0}, {"seed": 2**63}, {"seed": -(2**63)},
        {"seed": 2**63 + 2**12}, {"priority": 2**63}, {"priority": 2**63 + 2**12},
        {"top_k": -1}, {"top_k": 7}, {"min_p": None}, {"use_beam_search": True},
        {"logit_bias": {"5": -100, "6": 100, "7": 0}}, {"logit_bias": {"05": 100}},
        {"logit_bias": {"5": 99}}, {"allowed_token_ids": []}, {"allowed_token_ids": [5]},
        {"response_format": {"type": "text"}, "n": 65}, {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_object"}, "n": 65},
        {"response_format": {"type": "json_object"}, "best_of": 64},
        {"response_format": {"type": "json_schema"}},
        {"skip_special_tokens": False}, {"prompt_logprobs": 5}, {"prompt_logprobs": 1001},
        {"prompt_logprobs": 0, "stream": True}, {"prompt_logprobs": 0, "max_tokens": 0},
    ]),
    (ChatRequest, MESSAGES, [
        {}, {"messages": []}, {"max_tokens": 0}, {"max_tokens": 0, "echo": False},
        {"max_completion_tokens": 0, "n": 2}, {"max_tokens": 0, "n": 1},
        {"top_logprobs": 1, "logprobs": True}, {"top_logprobs": 0},
        {"stream_options": {}, "stream": True}, {"top_p": 0.5, "n": 2},
        {"continue_final_message": True, "add_generation_prompt": True},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"continue_final_message": None, "add_generation_prompt": True},
        {"n": 64, "response_format": JSON}, {"n": 65, "response_format": {"type": "text"}},
        {"n": 65, "response_format": None},
        {"prompt_logprobs": 0},
        {"prompt_logprobs": 0, "max_tokens": 0, "echo": False}, {"unknown": None},
        {"tools": []}, {"tools": [1]}, {"parallel_tool_calls": True}, {"temperature": 1},
        {"logit_bias": {"5": 1.0}}, {"modalities": ["text"]}, {"modalities": ["audio"]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    ]),
    (ChatMessage, {"role": "user", "content": "a"}, [
        {}, {"tool_calls": []}, {"tool_calls": None}, {"tool_calls": [1]}, {"name": None},
        {"name": "b"}, {"annotations": []}, {"unknown": None}, {"unknown": 1}, {"content": []},
        {"content": None}, {"role": "tool"}, {"role": "assistant"},
    ]),
    (ResponseFormat, {}, [
        {}, {"type": "text"}, {"type": "json_schema"}, JSON, {**JSON, "type": "json_object"},
        {"type": "json_object", "json_schema": None},
    ]),
    (TokenizeRequest, {}, [
        {}, {"prompt": "a"}, {"messages": [{"role": "user", "content": "a"}]},
        {"prompt": "a", "messages": [{"role": "user", "content": "a"}]},
        {"prompt": "a", "messages": None}, {"prompt": None}, {"prompt": "a", "tools": []},
        {"prompt": "a", "tools": [1]},
        {**MESSAGES, "continue_final_message": True, "add_generation_prompt": True},
        {**MESSAGES, "continue_final_message": True},
    ]),
    (GenerativeScoringRequest, LABELS, [
        {}, {"items": ["b", [5]]}, {"items": [[5]]}, {"query": [5]}, {"query": [5], "items": [[5]]},
        {"items": "b"}, {"priority": -3}, {"priority": "bulk"},
    ]),
    (LabelScoreRequest, LABELS, [
        {}, {"items": [[5]]}, {"query": [5]}, {"query": [5], "items": [[5]]}, {"items": "b"},
        {"temperature": 1}, {"temperature": 0.5}, {"rid": None}, {"rid": "a"},
    ]),
    (RerankV1Request, DOCUMENTS, [
        {"max_chunks_per_doc": 10}, {"max_chunks_per_doc": 9}, {"truncate_prompt_tokens": 5},
        {"truncate_prompt_tokens": None}, {"truncation": False}, {"encoding_format": "base64"},
    ]),
    (RerankV2Request, DOCUMENTS, [
        {"relevant_spans": {"mode": "disabled"}}, {"relevant_spans": {}}, {"relevant_spans": None},
    ]),
    (TeiRequest, {"query": "a", "texts": ["b"]}, [
        {"truncation_direction": "LEFT"}, {"truncation_direction": "up"},
        {"truncation_direction": None},
    ]),
    (AuditRequest, {**SCORE, "candidates": ["b", "c"]}, [
        {"pairs": [[0, 0]]}, {"pairs": [[0, 1]]}, {"pairs": None}, {"pairs": [[0]]},
        {"reported": {}}, {"reported": {"totals": [-1, None]}}, {"reported": {"totals": None}},
        {"reported": {"totals": [-1, -2], "order": [0, 1]}}, {"reported": {"order": [0, 0]}},
        {"reported": {"order": [1, 0]}}, {"reported": {"order": [1, 0], "decimals": 2}},
        {"reported": {"totals": [-1, -2], "decimals": 2}}, {"reported": {"totals": [1e10, 1]}},
        {"reported": {"probabilities": [0, 1]}}, {"reported": {"probabilities": [0, 1.5]}},
        {"reported": {"token_logprobs": [[-1, None], None]}},
        {"reported": {"token_logprobs": [[-1], []], "normalization": "mean"}},
        {"reported": {"totals": [-1, -2], "normalization": "mean"}},
    ]),
    (DecisionRequest, {"input": "a", "questions": QUESTIONS}, [
        {"prompt_cache_key": "a", "cache_salt": "b"}, {"prompt_cache_key": "a"},
        {"prompt_cache_key": "", "cache_salt": "b"}, {"cache_salt": "b"},
    ]),
    (SystemOneRequest, {"state": "a", "questions": {"a": NOUL}}, [
        {}, {"state": []}, {"state": {}}, {"state": 5}, {"unknown": 1}, {"questions": {}},
        {"assets": None}, {"assets": {"a": {}}}, {"assets": {}}, _noul(), _noul(criteria={}),
        _noul(criteria={"true": None}), _noul(criteria={"false": [5]}), _noul(instructions={}),
        {"questions": {"a": NOUL, "b": {"type": "choice", "criteria": {"a": None, "b": []}}}},
        {"questions": {"a": {"type": "choice", "criteria": {}}}},
        {"questions": {"a": {"type": "score", "criteria": ["a", {"b": 5}]}}},
        {"questions": {"a": {"type": "score", "criteria": ["a", None]}}},
        {"questions": {"a": {"type": "box"}}}, {"questions": {"a": {**NOUL, "name": "a"}}},
    ]),
    (InputMessage, {"role": "user", "content": "a"}, [
        {"phase": "commentary"}, {"phase": "commentary", "role": "assistant"},
        {"content": [{"type": "input_text", "text": "a"}]},
        {"content": [{"type": "output_text", "text": "a"}]},
        {"content": [{"type": "output_text", "text": "a"}], "role": "assistant"},
        {"content": [{"type": "input_json", "data": {}}], "role": "system"},
    ]),
]
# fmt: on


@pytest.mark.parametrize(("model", "smallest", "bodies"), CASES, ids=lambda one: str(one)[:40])
def test_what_the_document_allows_is_what_is_taken(
    model: type[Request], smallest: dict[str, Any], bodies: list[dict[str, Any]]
) -> None:
    """Conditions between fields, fields of other APIs and bounds: both say the same."""
    verdicts = []
    for more in bodies:
        body = smallest | more
        verdicts.append(_is_taken(model, body))
        assert allows(SCHEMAS[model.__name__], body, DOCUMENT) is verdicts[-1], body
    assert set(verdicts) == {True, False}


def _is_taken(model: type[Request], body: dict[str, Any]) -> bool:
    try:
        model.model_validate(body)
    except (ValidationError, InvalidQuery):
        return False
    return True


@pytest.mark.anyio
@pytest.mark.parametrize("metrics_key", [True, False])
async def test_where_a_key_is_wanted_is_said(metrics_key: bool) -> None:
    """Of every route, as the server does it."""
    app = shell_app(FakeEngine(), api_keys=("k",), metrics_key=metrics_key)
    document = app.openapi()
    assert document["security"] == [{"bearer": []}]
    async with client_of(app) as client:
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                response = await client.request(method, path.replace("{", "").replace("}", ""))
                is_open = operation.get("security") == []
                assert (response.status_code != 401) == is_open, (method, path)
                shown = operation.get("security", document["security"])
                assert shown in ([], [{"bearer": []}])


def test_without_keys_none_is_wanted() -> None:
    """The scheme is there for whoever puts a key in front."""
    document = shell_app(FakeEngine()).openapi()
    assert "security" not in document
    assert set(document["components"]["securitySchemes"]) == {"bearer"}
