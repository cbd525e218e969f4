"""POST /v1/score with boundary ``marginal``, as a call."""

from __future__ import annotations

import math

import httpx
import pytest

from tests.app.calls import NO, YES, call, refusal
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def test_a_marginal_score_over_http(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Sums, ranks, report and usage; a bad candidate fails alone; the tenant's salt goes along."""
    body = {"boundary": "marginal", "candidates": [NO, YES, ""], "cache_salt": "s"}
    answer = await call(client, "score", **body)
    no, yes, empty = answer["results"]
    assert [no["rank"], yes["rank"], empty["rank"]] == [2, 1, None]
    assert yes["marginal"]["exact"] and yes["logprob"] == yes["marginal"]["lower"]
    assert yes["logprob"] >= math.log(0.5) - 1e-6
    assert empty["error"]["param"] == "candidates.2"
    assert answer["boundary"]["policy"] == "marginal"
    expanded = yes["marginal"]["expanded"] + no["marginal"]["expanded"]
    assert answer["usage"]["scored_tokens"] == expanded
    assert answer["usage"]["prompt_tokens"] == 2
    left = 1.0 - math.exp(yes["logprob"]) - math.exp(no["logprob"])
    assert answer["off_candidate_mass"] == pytest.approx(left)
    assert engine.options[-1].cache_salt.endswith("s")


async def test_a_setting_without_a_meaning_is_a_422(client: httpx.AsyncClient) -> None:
    """Named."""
    error = await refusal(client, "score", boundary="marginal", normalization="mean")
    assert error["param"] == "normalization"
