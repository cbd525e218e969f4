"""Totals of /v1/decode are what /v1/score says of the same ids, to the bit, on a real model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from model_runtime import Engine, EngineConfig, total
from tests.app.calls import call
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

CONTEXT = "The capital of Japan is"
CANDIDATES = [" yes", " no", " the other answer", " Tokyo.", "n't"]
CONSTRAINTS: list[dict[str, Any]] = [
    {"max_tokens": 6},
    {"max_tokens": 6, "min_tokens": 2},
    {"candidates": CANDIDATES},
    {"candidates": CANDIDATES, "append_eos": False},
]

SEARCHES: list[dict[str, Any]] = [
    {"strategy": "greedy"},
    {"strategy": "beam", "num_return_sequences": 2},
    {"strategy": "exact", "num_return_sequences": 2, "max_expansions": 64},
]


@pytest.fixture
async def client(tiny_folder: TinyFolder, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A server of a tiny model."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=1 << 20)
    async with client_of(shell_app(Engine.load(config))) as client:
        yield client


async def streamed(client: httpx.AsyncClient, **body: Any) -> tuple[list[float], dict[str, Any]]:
    """The log-probabilities of the token events, and the result's sequence."""
    response = await client.post("/v1/decode", json={**body, "stream": True})
    data = [line for line in response.text.splitlines() if line.startswith("data: ")]
    *tokens, result = [json.loads(line.removeprefix("data: ")) for line in data]
    (sequence,) = result["sequences"]
    assert "".join(token["text"] for token in tokens) == sequence["text"]
    assert [token["id"] for token in tokens] == sequence["token_ids"]
    return [token["logprob"] for token in tokens], sequence


async def scores(client: httpx.AsyncClient, prefix: list[int], ids: list[list[int]]) -> list[float]:
    """What /v1/score says of ids behind a prefix of ids."""
    answer = await call(client, "score", context=prefix, candidates=ids)
    return [result["logprob"] for result in answer["results"]]


async def prefix_ids(client: httpx.AsyncClient, answer: dict[str, Any]) -> list[int]:
    """The ids that an answer's sequences stand behind."""
    app = client._transport.app  # type: ignore[attr-defined]
    tokenizer = app.state.lifecycle.engine().tokenizer
    ids: list[int] = tokenizer.encode(CONTEXT)
    return ids[: answer["boundary"]["start_token"]] if "boundary" in answer else ids


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: "+".join(c) or "free")
async def test_every_total_is_the_score_of_its_ids(
    client: httpx.AsyncClient, constraint: dict[str, Any]
) -> None:
    """Greedy streamed and whole, beam and exact: one float, which is also the sum of the parts."""
    body = {"context": CONTEXT, **constraint}
    best: dict[str, Any] = {}
    for settings in SEARCHES:
        answer = await call(client, "decode", **body, **settings, token_logprobs=True)
        prefix = await prefix_ids(client, answer)
        found = answer["sequences"]
        assert found
        want = await scores(client, prefix, [sequence["token_ids"] for sequence in found])
        for sequence, score in zip(found, want, strict=True):
            assert sequence["logprob"] == score
            assert score == total([token["logprob"] for token in sequence["tokens"]])
        best[settings["strategy"]] = found[0]
    parts, sequence = await streamed(client, **body)
    assert total(parts) == sequence["logprob"] == best["greedy"]["logprob"]
    assert sequence["token_ids"] == best["greedy"]["token_ids"]


@pytest.mark.parametrize("strategy", ["greedy", "beam", "exact"])
async def test_a_candidate_with_its_end_scores_as_append_eos_says(
    client: httpx.AsyncClient, strategy: str
) -> None:
    """The end token of a closed choice is the end that /v1/score appends."""
    body: dict[str, Any] = {"context": CONTEXT, "candidates": CANDIDATES}
    (sequence,) = (await call(client, "decode", strategy=strategy, **body))["sequences"]
    answer = await call(client, "score", append_eos=True, **body)
    results = [result["logprob"] for result in answer["results"]]
    assert sequence["logprob"] == results[sequence["candidate"]]
    assert sequence["text"] == CANDIDATES[sequence["candidate"]]
    if strategy == "exact":
        assert sequence["logprob"] == max(results)


async def test_a_stop_ends_stream_and_answer_alike(client: httpx.AsyncClient) -> None:
    """With an end token that the caller names the bits are the same too."""
    body: dict[str, Any] = {"context": CONTEXT, "max_tokens": 8}
    (free,) = (await call(client, "decode", **body))["sequences"]
    body["stop_token_ids"] = [free["token_ids"][3]]
    parts, sequence = await streamed(client, **body)
    assert sequence["finish_reason"] == "stop"
    assert sequence["token_ids"] == free["token_ids"][: len(parts)]
    (score,) = await scores(client, await prefix_ids(client, {}), [sequence["token_ids"]])
    assert total(parts) == sequence["logprob"] == score
