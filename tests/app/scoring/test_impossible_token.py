"""A token to which the model gives no probability: it fails by name, alone, and is counted."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from torch import Tensor

from app.schemas.next_token import NextTokenResponse
from model_runtime import Engine, EngineConfig
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.runner.native_runner import NativeModelRunner
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder
from tests.tiny_models import TINY_VOCAB

pytestmark = pytest.mark.anyio

IMPOSSIBLE = 9
CONTEXT = [5, 6]


@pytest.fixture
async def client(
    tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a tiny model whose logit of one token is minus infinity, always."""

    def mask(kind: type[ModelRunner] | type[NativeModelRunner]) -> None:
        logits: Callable[[Any, Tensor], Tensor] = kind._logits

        def masked(runner: Any, hidden: Tensor) -> Tensor:
            return logits(runner, hidden).index_fill(
                1, hidden.new_tensor([IMPOSSIBLE]).long(), -math.inf
            )

        monkeypatch.setattr(kind, "_logits", masked)

    folder = str(tiny_folder("llama"))
    engine = Engine.load(EngineConfig(model=folder, kv_cache_bytes=4 << 20))
    async with client_of(shell_app(engine)) as client:
        mask(ModelRunner)
        mask(NativeModelRunner)
        yield client


async def counted(client: httpx.AsyncClient) -> float:
    """How many such failures the metrics tell."""
    lines = (await client.get("/metrics")).text.splitlines()
    name = "chainrule_non_finite_logits_total "
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def post(client: httpx.AsyncClient, verb: str, **body: Any) -> httpx.Response:
    """The response to a request behind the one context."""
    return await client.post(f"/v1/{verb}", json={"context": CONTEXT, **body})


async def results(client: httpx.AsyncClient, *candidates: list[int]) -> list[dict[str, Any]]:
    """What becomes of candidates."""
    answer = await post(client, "score", candidates=candidates)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


async def test_a_candidate_with_it_fails_alone(client: httpx.AsyncClient) -> None:
    """Wherever in the candidate it stands; the others have the bits that they have without it."""
    good = [[7, 8], [10], [11, 12, 13]]
    alone = await results(client, *good)
    assert await counted(client) == 0
    mixed = await results(client, good[0], [IMPOSSIBLE], good[1], [7, IMPOSSIBLE, 8], good[2])
    for place in (1, 3):
        assert mixed[place].keys() == {"index", "error"}
        assert mixed[place]["error"]["code"] == "non_finite_logits"
    assert [mixed[place]["logprob"] for place in (0, 2, 4)] == [one["logprob"] for one in alone]
    assert await counted(client) == 2


async def test_a_request_of_nothing_else_is_a_failure(client: httpx.AsyncClient) -> None:
    """500 by the same name, counted once for each query."""
    failed = await post(client, "score", candidates=[[IMPOSSIBLE]])
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "non_finite_logits")
    assert await counted(client) == 1


async def test_a_context_may_hold_it(client: httpx.AsyncClient) -> None:
    """It is not scored there."""
    answer = await client.post(
        "/v1/score", json={"context": [5, IMPOSSIBLE], "candidates": [[7], [8]]}
    )
    assert answer.status_code == 200
    assert all(math.isfinite(one["logprob"]) for one in answer.json()["results"])
    assert await counted(client) == 0


async def test_a_distribution_shows_it_last(client: httpx.AsyncClient) -> None:
    """JSON has no minus infinity, so its log-probability is absent; the others sum to one."""
    answer = await post(client, "next_token", top_k=TINY_VOCAB)
    assert answer.status_code == 200, answer.text
    *others, last = answer.json()["tokens"]
    assert last["id"] == IMPOSSIBLE
    assert "logprob" not in last and last["probability"] == 0.0
    assert NextTokenResponse.model_validate(answer.json()).tokens[-1].logprob == -math.inf
    assert math.isclose(math.fsum(one["probability"] for one in others), 1.0, rel_tol=1e-4)
    assert await counted(client) == 0


async def test_no_search_takes_it(client: httpx.AsyncClient) -> None:
    """Where nothing else is allowed there is no completion, and the caller is told so."""
    among = await post(client, "decode", candidates=[[IMPOSSIBLE], [7]])
    assert among.status_code == 200, among.text
    assert among.json()["sequences"][0]["token_ids"][0] == 7
    only = await post(client, "decode", candidates=[[IMPOSSIBLE]])
    assert (only.status_code, only.json()["error"]["code"]) == (422, "no_completion")
