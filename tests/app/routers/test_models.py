"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

import httpx
import pytest

from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """An engine whose error is known, with a model that is odd."""
    return FakeEngine(numeric_error=(2e-5, 3e-6), warnings=("mind the gap",))


async def test_the_list_is_openais(client: httpx.AsyncClient) -> None:
    """The list has OpenAI's shape, and each model everything that its clients may need."""
    response = await client.get("/v1/models")
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "list"
    (card,) = body["data"]
    limits = card.pop("limits")
    assert card == {
        "id": "org/toy",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "chainrule",
        "fingerprint": "f" * 24,
        "numeric_error": {"maximum": 2e-5, "rms": 3e-6},
        "architecture": "ToyForCausalLM",
        "parameters": 12,
        "dtype": "float32",
        "device": "cpu",
        "kernels": "torch",
        "batch_invariant": False,
        "vocab_size": 272,
        "max_model_len": 64,
        "bos_token_id": 264,
        "end_token_ids": [265],
        "warnings": ["mind the gap"],
    }
    assert set(limits) == {
        "max_body_bytes",
        "max_candidates",
        "max_results",
        "max_choices",
        "max_scored_tokens",
        "max_path_tokens",
        "max_text_chars",
        "max_joined_chars",
        "max_token_ids",
        "max_top_logprobs",
        "max_token_entries",
        "max_top_entries",
        "max_labels",
        "max_calibration_contexts",
        "max_marginal_expansions",
        "max_marginal_paths",
        "max_audit_candidates",
        "max_audit_tokens",
        "max_beams",
        "max_expansions",
        "max_exact_sequences",
        "max_threshold_sequences",
        "max_regex_chars",
        "max_json_schema_chars",
        "max_prompts",
        "max_completion_tokens",
        "max_completion_entries",
        "max_echo_bytes",
        "max_documents",
        "max_rerank_bytes",
        "max_label_scores",
        "max_questions",
        "max_options",
        "grammar",
    }


async def test_the_list_is_system_ones_too(client: httpx.AsyncClient) -> None:
    """The same models once more, as clients of another API read them."""
    assert (await client.get("/v1/models")).json()["models"] == [
        {
            "name": "org/toy",
            "description": "ToyForCausalLM of 12 parameters in float32",
            "release_date": "2023-11-14",
        }
    ]


async def test_a_name_may_hold_slashes(client: httpx.AsyncClient) -> None:
    """A hub id is found as it is written, and escaped."""
    (card,) = (await client.get("/v1/models")).json()["data"]
    for path in ("/v1/models/org/toy", "/v1/models/org%2Ftoy"):
        response = await client.get(path)
        assert response.status_code == 200
        assert response.json() == card


@pytest.mark.parametrize("name", ["toy", "org", "org/toy/", "org/toy2", "%20", "%F0%9F%98%80"])
async def test_another_model_is_not_found(client: httpx.AsyncClient, name: str) -> None:
    """Any other name is 404 in the one error shape."""
    response = await client.get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_what_is_not_known_is_absent() -> None:
    """A numeric error that nobody measured is not made up."""
    async with client_of(shell_app(FakeEngine())) as client:
        (card,) = (await client.get("/v1/models")).json()["data"]
    assert not card.keys() & {"numeric_error", "warnings", "kernels_reason"}


@pytest.mark.parametrize("reason", ["no compiler", None])
async def test_why_torch_computes_is_said(reason: str | None) -> None:
    """Where the setting left it open; with native kernels there is nothing to say."""
    kernels = "native" if reason is None else "torch"
    async with client_of(shell_app(FakeEngine(kernels=kernels, kernels_reason=reason))) as client:
        (card,) = (await client.get("/v1/models")).json()["data"]
    assert (card["kernels"], card.get("kernels_reason")) == (kernels, reason)


async def test_the_operators_limits_are_reported_and_kept(engine: FakeEngine) -> None:
    """What /v1/models says of the limits is what requests are held to."""
    app = shell_app(engine, max_candidates=2, max_top_logprobs=3, max_body_bytes=4096)
    async with client_of(app) as client:
        limits = (await client.get("/v1/models/org/toy")).json()["limits"]
        assert (limits["max_candidates"], limits["max_top_logprobs"]) == (2, 3)
        assert (limits["max_choices"], limits["max_body_bytes"]) == (2, 4096)
        body = {"context": "it is", "candidates": ["a", "b"], "top_logprobs": 3}
        assert (await client.post("/v1/score", json=body)).status_code == 200
        for field, value in (("candidates", ["a", "b", "c"]), ("top_logprobs", 4)):
            response = await client.post("/v1/score", json={**body, field: value})
            assert response.status_code == 422
            assert response.json()["error"]["param"] == field
        response = await client.post("/v1/next_token", json={"context": "a", "top_k": 4})
        assert response.json()["error"]["param"] == "top_k"
        response = await client.post("/v1/next_token", json={"context": "a"})
        assert len(response.json()["tokens"]) == 3
