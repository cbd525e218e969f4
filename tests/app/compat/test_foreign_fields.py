"""Fields of other APIs that are not served: nothing where they ask for nothing, else refused."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.compat.foreign_fields import SENT_BY_ROUTERS
from app.compat.openai.request import VLLM_DEFAULTS
from app.routers.score import KEYS
from app.schemas.score import ScoreRequest
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
ROUTED = SENT_BY_ROUTERS.items()

DEFAULTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/v1/completions", COMPLETION, {k: v[0] if v else None for k, v in VLLM_DEFAULTS.items()}),
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
        (path, body, {"rid": "request 7", **{k: v[0] if v else None for k, v in ROUTED}})
        for path, body in (
            ("/v1/completions", COMPLETION),
            ("/v1/rerank", RERANK),
            ("/v1/score", PAIRS),
            ("/v1/score", LABELS),
            ("/tokenize", TOKENIZE),
        )
    ),
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
]


async def post(path: str, body: dict[str, Any]) -> httpx.Response:
    """What a server of the law answers."""
    async with client_of(shell_app(FakeEngine())) as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize(("path", "body", "defaults"), DEFAULTS)
async def test_a_clients_own_defaults_change_nothing(
    path: str, body: dict[str, Any], defaults: dict[str, Any]
) -> None:
    """A client that spells out its defaults gets the answer that it gets without."""
    plain, spelled = await post(path, body), await post(path, {**body, **defaults})
    assert (plain.status_code, spelled.status_code) == (200, 200), spelled.text
    varying = {"id", "created"}
    if isinstance(plain.json(), list):
        assert spelled.json() == plain.json()
    else:
        assert spelled.json().keys() == plain.json().keys()
        for key in plain.json().keys() - varying:
            assert spelled.json()[key] == plain.json()[key]


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


def test_no_shape_is_called_like_a_field() -> None:
    """Or complaints about a body would be taken for complaints about that field."""
    fields = {key for keys in KEYS.values() for key in keys} | set(ScoreRequest.model_fields)
    assert not KEYS.keys() & fields
