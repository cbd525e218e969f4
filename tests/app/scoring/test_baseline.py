"""POST /v1/score: scores that are compared with another context, and what they are off by."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.app.calls import NO, YES, call, log, refusal, score_with
from tests.app.fake_engine import END, LAW, FakeEngine

pytestmark = pytest.mark.anyio

OTHER = "a"
"""A context after which ``YES`` and ``NO`` are as likely as any token."""


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


def uniform(last: str) -> float:
    """The log-probability of a token that the law does not name."""
    tokenizer = FakeEngine().tokenizer
    named = LAW.get(last, {})
    rest = (1.0 - sum(named.values())) / (tokenizer.head_rows - len(named))
    return log(rest)


async def test_pmi_subtracts_the_same_ids_under_the_other_context(
    client: httpx.AsyncClient,
) -> None:
    """What the candidate gains by the context, with the raw values beside it."""
    answer = await call(client, "score", normalization="pmi", pmi_context=OTHER)
    yes, no = answer["results"]
    assert yes["logprob"] == log(0.5)
    assert yes["baseline_logprob"] == uniform(OTHER)
    assert yes["score"] == log(0.5) - uniform(OTHER)
    assert no["score"] == log(0.25) - uniform(OTHER)
    assert answer["usage"]["scored_tokens"] == 2


async def test_calibration_subtracts_the_mean_over_its_contexts(client: httpx.AsyncClient) -> None:
    """Contexts may be texts, ids and messages; each counts once."""
    contexts: list[Any] = [OTHER, "it is", FakeEngine().tokenizer.encode(OTHER)]
    body = {"normalization": "calibrated", "calibration_contexts": contexts}
    yes, no = (await call(client, "score", **body))["results"]
    assert yes["baseline_logprob"] == pytest.approx((2 * uniform(OTHER) + log(0.5)) / 3)
    assert yes["score"] == yes["logprob"] - yes["baseline_logprob"]
    assert no["baseline_logprob"] == pytest.approx((2 * uniform(OTHER) + log(0.25)) / 3)


async def test_an_appended_end_is_in_the_baseline_too(client: httpx.AsyncClient) -> None:
    """Both sides of the difference hold the same tokens."""
    body = {"normalization": "pmi", "pmi_context": OTHER, "append_eos": True}
    yes = (await call(client, "score", candidates=[YES], **body))["results"][0]
    end = log(LAW[YES][END])
    assert yes["baseline_logprob"] == uniform(OTHER) + end
    assert yes["score"] == (log(0.5) + end) - (uniform(OTHER) + end)


async def test_gnmt_divides_by_its_length_penalty(client: httpx.AsyncClient) -> None:
    """((5 + n) / 6) to the power of alpha, 0.6 where none is given."""
    for alpha, power in ((None, 0.6), (0.0, 0.0), (1.0, 1.0)):
        body = {"normalization": "gnmt", "gnmt_alpha": alpha, "candidates": [" yes.", NO]}
        two, one = (await call(client, "score", **body))["results"]
        assert two["score"] == two["logprob"] / (7 / 6) ** power
        assert one["score"] == one["logprob"]


async def test_every_result_says_what_its_score_may_be_off_by() -> None:
    """The error of a token times their number, carried through the normalization."""
    engine = FakeEngine(numeric_error=(1e-5, 1e-6))
    candidates = [" yes.", NO]
    for body, errors in (
        ({}, [2e-5, 1e-5]),
        ({"normalization": "mean"}, [1e-5, 1e-5]),
        ({"normalization": "pmi", "pmi_context": OTHER}, [4e-5, 2e-5]),
        ({"normalization": "gnmt", "gnmt_alpha": 1.0}, [2e-5 * 6 / 7, 1e-5]),
    ):
        results = (await score_with(engine, candidates=candidates, **body))["results"]
        assert [one["numeric_error"] for one in results] == pytest.approx(errors)


async def test_the_mass_off_the_candidates(client: httpx.AsyncClient) -> None:
    """1 less the probability of the distinct candidates that could be scored."""
    answer = await call(client, "score", candidates=[YES, NO, YES, ""])
    assert answer["off_candidate_mass"] == pytest.approx(0.25)
    ended = await call(client, "score", candidates=[" no", " no no"], append_eos=True)
    totals = [one["logprob"] for one in ended["results"]]
    assert ended["off_candidate_mass"] == pytest.approx(1 - sum(map(math.exp, totals)))


async def test_no_mass_where_it_would_mean_nothing(client: httpx.AsyncClient) -> None:
    """A candidate that begins another one, or a start before the context's end."""
    prefixed = await call(client, "score", candidates=[" no", " no no"])
    assert "off_candidate_mass" not in prefixed
    shifted = await call(client, "score", candidates=[YES, "n't"])
    assert shifted["boundary"]["shift_bytes"] > 0
    assert "off_candidate_mass" not in shifted


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"normalization": "pmi"}, "pmi_context"),
        ({"normalization": "calibrated"}, "calibration_contexts"),
        ({"normalization": "calibrated", "calibration_contexts": []}, "calibration_contexts"),
        ({"pmi_context": OTHER}, "pmi_context"),
        ({"normalization": "pmi", "pmi_context": OTHER, "gnmt_alpha": 1.0}, "gnmt_alpha"),
        ({"normalization": "gnmt", "gnmt_alpha": -1.0}, "gnmt_alpha"),
        ({"normalization": "pmi", "pmi_context": ""}, "pmi_context"),
        ({"normalization": "pmi", "pmi_context": [10**6]}, "pmi_context"),
        (
            {"normalization": "calibrated", "calibration_contexts": [OTHER, [10**6]]},
            "calibration_contexts.1",
        ),
        (
            {"normalization": "calibrated", "calibration_contexts": [OTHER] * 17},
            "calibration_contexts",
        ),
    ],
)
async def test_a_bad_baseline_is_refused_by_its_field(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """What is missing, what belongs to another normalization, and what cannot be read."""
    error = await refusal(client, "score", **body)
    assert error["param"] == param
    assert param.split(".")[0] in error["message"]
