"""POST /v1/score with boundary ``marginal``, as a call."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import replace
from typing import Literal

import httpx
import pytest

from tests.app.calls import NO, YES, call, refusal
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine
from tests.model_runtime.tokenization import tokenizer_kinds as kinds

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
    assert [no["rank"], yes["rank"]] == [2, 1]
    assert yes["marginal"]["exact"] and yes["logprob"] == yes["marginal"]["lower"]
    assert yes["logprob"] >= math.log(0.5) - 1e-6
    assert empty.keys() == {"index", "error"}
    assert empty["error"]["param"] == "candidates.2"
    assert answer["boundary"]["policy"] == "marginal"
    expanded = yes["marginal"]["expanded"] + no["marginal"]["expanded"]
    assert answer["usage"]["scored_tokens"] == expanded
    assert answer["usage"]["prompt_tokens"] == 2
    left = 1.0 - math.exp(yes["logprob"]) - math.exp(no["logprob"])
    assert answer["off_candidate_mass"] == pytest.approx(left)
    assert engine.options[-1].cache_salt.endswith("s")


@pytest.mark.parametrize(
    ("form", "candidate"), [("NFC", "e\u0301"), ("NFKC", "\N{LATIN SMALL LIGATURE FI}")]
)
async def test_a_normalized_candidate_is_the_text_that_its_tokens_spell(
    engine: FakeEngine, form: Literal["NFC", "NFKC"], candidate: str
) -> None:
    """The sum holds the split of ``separate``, of the normalized text; the answer says which."""
    tokenizer = kinds.tokenizer(kinds.byte_level(kinds.BYTES) | {"normalizer": {"type": form}})
    engine.tokenizer = tokenizer  # type: ignore[assignment]
    engine.info = replace(engine.info, vocab_size=tokenizer.head_rows, end_token_ids=(0,))
    async with client_of(shell_app(engine)) as client:
        body = {"context": "I", "candidates": [candidate, "a"]}
        apart = (await call(client, "score", boundary="separate", **body))["results"]
        summed = (await call(client, "score", boundary="marginal", **body))["results"]
    normal = unicodedata.normalize(form, candidate)
    assert [one["marginal"].get("normalized") for one in summed] == [normal, None]
    assert summed[0]["marginal"]["exact"]
    assert summed[0]["logprob"] >= apart[0]["logprob"]
    for result in apart[0], summed[0]:
        per_byte = result["logprob"] / len(candidate.encode())
        assert result["logprob_per_byte"] == pytest.approx(per_byte)


async def test_a_setting_without_a_meaning_is_a_422(client: httpx.AsyncClient) -> None:
    """Named."""
    error = await refusal(client, "score", boundary="marginal", normalization="mean")
    assert error["param"] == "normalization"
