"""Fields of other APIs that are not served: nothing where they ask for nothing, else refused."""

from __future__ import annotations

from typing import Any, ClassVar

import httpx
import pytest

from app.compat.foreign_fields import (
    CHAT_DEFAULTS,
    COMPLETION_DEFAULTS,
    OPENAI_DEFAULTS,
    POOLING_DEFAULTS,
    RERANK_DEFAULTS,
    SENT_BY_ROUTERS,
    TOKENIZER_DEFAULTS,
    Neutral,
    UnsupportedFields,
)
from app.routers.score import KEYS
from app.schemas.request import ServingOptions
from app.schemas.score import ScoreRequest
from tests.app.compat.decisions.decision_calls import ChatTokenizer
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

COMPLETION = {"prompt": "it is", "max_tokens": 1}
SHORT = {"template": "{document}{query}"}
PAIRS = {"queries": "it is", "documents": ["it"], **SHORT}
RERANK = {"query": "it is", "documents": ["it"], **SHORT}
TEI = {"query": "it is", "texts": ["it"], **SHORT}
LABELS = {"query": "it", "items": [" is"], "label_token_ids": [3]}
TOKENIZE = {"prompt": "it is"}
DETOKENIZE = {"tokens": [256, 257]}
DECIDE = {"input": "it", "questions": [{"type": "predicate", "instructions": "it is"}]}
CHAT = {"messages": [{"role": "user", "content": "it is"}], "max_tokens": 1}
NAMED = {"type": "noul", "instructions": "it is", "no_such_field": None}
FOREIGN: dict[str, dict[str, Any]] = {
    "/v1/completions": COMPLETION,
    "/v1/completions/render": COMPLETION,
    "/v1/chat/completions": CHAT,
    "/v1/chat/completions/render": CHAT,
    "/v1/decisions": DECIDE,
    "/v1/rerank": RERANK,
    "/v2/rerank": RERANK,
    "/rerank": TEI,
    "/v1/score": PAIRS,
    "/score": PAIRS,
    "/generative_scoring": LABELS,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
}
"""Every route that speaks another API, with a body of it. /v1/systemone takes any field."""
CHATS = ("/v1/decisions", "/v1/systemone", "/v1/chat/completions", "/v1/chat/completions/render")


def spelled_out(lists: Neutral, which: int = 0) -> dict[str, Any]:
    """A body of nothing but values that ask for nothing."""
    return {name: values[which] if values else None for name, values in lists.items()}


DEFAULTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/v1/completions", COMPLETION, spelled_out(COMPLETION_DEFAULTS)),
    ("/v1/completions", COMPLETION, spelled_out(COMPLETION_DEFAULTS, -1)),
    ("/v1/chat/completions", CHAT, spelled_out(CHAT_DEFAULTS)),
    ("/v1/chat/completions", CHAT, spelled_out(CHAT_DEFAULTS, -1)),
    ("/v1/decisions", DECIDE, spelled_out(OPENAI_DEFAULTS)),
    ("/v1/rerank", RERANK, spelled_out(RERANK_DEFAULTS)),
    ("/v2/rerank", RERANK, spelled_out(RERANK_DEFAULTS, -1)),
    ("/v1/score", PAIRS, spelled_out(POOLING_DEFAULTS)),
    ("/tokenize", TOKENIZE, spelled_out(TOKENIZER_DEFAULTS)),
    ("/detokenize", DETOKENIZE, {"skip_special_tokens": True}),
    ("/v1/completions", COMPLETION, {"priority": 0}),
    ("/v1/score", PAIRS, {"encoding_format": "float", "activation": True, "priority": 0}),
    ("/v1/score", LABELS, {"rid": None, "temperature": 1.0, "priority": 3}),
    (
        "/v1/rerank",
        RERANK,
        {"use_activation": True, "max_tokens_per_doc": None, "truncation": True},
    ),
    ("/rerank", TEI, {"priority": 3}),
    (
        "/tokenize",
        TOKENIZE,
        {"continue_final_message": False, "tools": None, "chat_template": None},
    ),
    *(
        (path, body, {"rid": "7", "session_id": "s", "user": "u", **spelled_out(SENT_BY_ROUTERS)})
        for path, body in [*FOREIGN.items(), ("/v1/score", LABELS)]
    ),
    *(
        (path, body, {"no_such_field": None, "stop_regex": None, "texts": None, "data_1": None})
        for path, body in [*FOREIGN.items(), ("/v1/score", LABELS)]
        if path != "/rerank"
    ),
    ("/rerank", TEI, {"no_such_field": None, "documents": None, "model": None}),
    ("/v1/completions", COMPLETION, {"stream_options": None, "user": None}),
    ("/v2/rerank", RERANK, {"relevant_spans": {"mode": "disabled", "unknown": None}}),
]
MEANT: list[tuple[str, dict[str, Any], str, object]] = [
    ("/v1/completions", COMPLETION, "top_k", 5),
    ("/v1/completions", COMPLETION, "repetition_penalty", 1.2),
    ("/v1/completions", COMPLETION, "use_beam_search", True),
    ("/v1/completions", COMPLETION, "min_tokens", False),
    ("/v1/score", PAIRS, "encoding_format", "base64"),
    ("/v1/score", LABELS, "temperature", 0.5),
    ("/v1/completions", COMPLETION, "lora_path", "adapter"),
    ("/v1/rerank", RERANK, "return_hidden_states", True),
    ("/v1/rerank", RERANK, "return_embeddings", True),
    ("/tokenize", TOKENIZE, "chat_template", "{{ messages }}"),
    ("/v1/completions", COMPLETION, "store", True),
    ("/v1/completions", COMPLETION, "metadata", {"a": "b"}),
    ("/v1/completions", COMPLETION, "service_tier", "flex"),
    ("/v1/completions", COMPLETION, "session_params", {"deep": [[[[[]]]]]}),
    ("/v1/completions", COMPLETION, "modalities", ["text", "audio"]),
    ("/v2/rerank", RERANK, "embed_dtype", "int8"),
    ("/v1/decisions", DECIDE, "store", True),
    *((path, body, "lora_path", "adapter") for path, body in FOREIGN.items()),
]


async def post(path: str, body: dict[str, Any]) -> httpx.Response:
    """What a server of the law answers."""
    chat = {"tokenizer": ChatTokenizer(), "max_model_len": 1 << 16}
    engine = FakeEngine(**chat) if path in CHATS else FakeEngine()
    async with client_of(shell_app(engine)) as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize(("path", "body", "defaults"), DEFAULTS)
async def test_a_clients_own_defaults_change_nothing(
    path: str, body: dict[str, Any], defaults: dict[str, Any]
) -> None:
    """A client that spells out its defaults gets the answer that it gets without."""
    plain, spelled = await post(path, body), await post(path, {**body, **defaults})
    assert (plain.status_code, spelled.status_code) == (200, 200), spelled.text
    assert same_parts(spelled.json()) == same_parts(plain.json())


def same_parts(answer: Any) -> list[dict[str, Any]]:
    """What two answers to the same question have alike."""
    varying = {"id", "request_id", "created", "timings_ms"}
    parts = answer if isinstance(answer, list) else [answer]
    return [{key: part[key] for key in part.keys() - varying} for part in parts]


@pytest.mark.parametrize(("path", "body", "field", "value"), MEANT)
async def test_what_is_meant_is_refused_by_name(
    path: str, body: dict[str, Any], field: str, value: object
) -> None:
    """A value that would change something is not ignored, and not called unknown."""
    response = await post(path, {**body, field: value})
    assert response.status_code == 422
    assert f"{field}: this is not served here" in response.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({**PAIRS, "bogus": 1}, "bogus"),
        ({**PAIRS, "rid": 7}, "rid"),
        ({**LABELS, "rid": "x" * 257}, "rid"),
        ({**PAIRS, "documents": {}}, "documents"),
        ({**PAIRS, "truncate_prompt_tokens": -1}, "truncate_prompt_tokens"),
    ],
)
async def test_a_complaint_names_the_field_at_fault(body: dict[str, Any], param: str) -> None:
    """Not the shape that the body was taken for."""
    response = await post("/v1/score", body)
    assert response.json()["error"]["param"] == param


async def test_a_null_in_a_part_of_a_body_asks_for_nothing() -> None:
    """In a named question, too, of which no unknown field is taken otherwise."""
    body: dict[str, Any] = {"state": "it", "questions": {"a": NAMED}}
    assert (await post("/v1/systemone", body)).status_code == 200
    body["questions"]["a"] = {**NAMED, "no_such_field": False}
    response = await post("/v1/systemone", body)
    assert response.status_code == 422
    assert "questions.a.no_such_field" in response.text


@pytest.mark.parametrize(("path", "body"), FOREIGN.items())
async def test_what_is_unknown_and_not_null_is_refused_by_name(
    path: str, body: dict[str, Any]
) -> None:
    """False, 0 and nothing at all may mean something, where nobody knows the field."""
    for value in (False, 0, "", [], {}):
        response = await post(path, {**body, "no_such_field": value})
        assert response.status_code == 422
        assert "no_such_field: there is no such field" in response.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", {"context": "it", "candidates": [" is"]}),
        ("/v1/next_token", {"context": "it"}),
        ("/v1/decode", {"context": "it", "max_tokens": 1}),
    ],
)
async def test_native_routes_stay_strict(path: str, body: dict[str, Any]) -> None:
    """There a null is a slip like any other, and what other APIs know is unknown."""
    assert (await post(path, body)).status_code == 200
    for field in ("no_such_field", "query", "lora_path"):
        response = await post(path, {**body, field: None})
        assert (response.status_code, response.json()["error"]["param"]) == (422, field)


def test_a_field_that_is_served_is_not_left_away() -> None:
    """Whatever the lists say of it."""

    class Served(UnsupportedFields, ServingOptions):
        noop_values: ClassVar[Neutral] = {"top_k": (1,), "bad_words": ([],)}
        top_k: int = 1

    assert Served.model_validate({"top_k": 5, "bad_words": [], "best": None}).top_k == 5
    assert "top_k" not in Served.noop_values
    assert Served.noop_values.keys() >= {"bad_words", *SENT_BY_ROUTERS}


def test_no_shape_is_called_like_a_field() -> None:
    """Or complaints about a body would be taken for complaints about that field."""
    fields = {key for keys in KEYS.values() for key in keys} | set(ScoreRequest.model_fields)
    assert not KEYS.keys() & fields
