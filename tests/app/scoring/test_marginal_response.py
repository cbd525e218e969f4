"""Boundary ``marginal``: from request to search and back, over a law written out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from app.schemas.bounds import MAX_MARGINAL_PATHS
from app.schemas.score import ScoreRequest
from app.schemas.score_response import CandidateScore
from app.scoring.marginal_plan import MarginalPlan, plan_marginal
from app.scoring.marginal_response import _probability_bounds, build_marginal, marginal_scores
from app.scoring.response import ScoreBody
from model_runtime import (
    ChainruleError,
    DeadlineExceeded,
    InvalidQuery,
    MarginalAnswer,
    MarginalResult,
    NonFiniteLogits,
    PathTooLong,
    RequestOptions,
    TokenIdOutOfRange,
    probabilities,
)
from tests.app.fake_engine import END, FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio

CONTEXT = "it is"


def plan(engine: FakeEngine, *candidates: str | list[int], **body: Any) -> MarginalPlan:
    """The plan of the smallest request, with ``body`` in place of its fields."""
    fields = {"context": CONTEXT, "candidates": list(candidates), "boundary": "marginal"}
    request = ScoreRequest.model_validate(fields | body)
    return plan_marginal(engine.tokenizer, engine.info, request)  # type: ignore[arg-type]


async def answer(engine: FakeEngine, *candidates: str | list[int], **body: Any) -> ScoreBody:
    """What comes back of it."""
    planned = plan(engine, *candidates, **body)
    outcome = await engine.decode(planned.search, RequestOptions())
    return build_marginal(engine.info, planned, outcome.value)


async def score(
    engine: FakeEngine, *candidates: str | list[int], **body: Any
) -> list[CandidateScore]:
    return (await answer(engine, *candidates, **body)).results


def told(
    planned: MarginalPlan, results: Sequence[MarginalAnswer], **info: Any
) -> list[CandidateScore]:
    """The scores of made-up results."""
    return marginal_scores(FakeEngine(**info).info, planned, results)


def found(lower: float, upper: float | None = None) -> MarginalResult:
    """A made-up result; exact where ``upper`` is left out."""
    return MarginalResult(lower, lower if upper is None else upper, upper is None, 5, 3)


def law(engine: FakeEngine, text: str, *, ended: bool = False, last: str = " is") -> float:
    """By the definition, in probability: all ways to spell ``text`` after a token."""
    tokenizer, rows = engine.tokenizer, [engine.tokenizer.id(last)]
    text_ids = range(tokenizer.vocab_size - 3)

    def mass(spelled: bytes, token_id: int) -> float:
        row = engine.probabilities(token_id)
        if ended and spelled == text.encode():
            return float(row[tokenizer.id(END)])
        total = 0.0
        for other in text_ids:
            longer = spelled + tokenizer.token_bytes(other)
            if not ended and longer.startswith(text.encode()):
                total += float(row[other])
            elif text.encode().startswith(longer):
                total += float(row[other]) * mass(longer, other)
        return total

    return mass(b"", rows[0])


async def test_a_score_is_the_sum_over_all_tokenizations() -> None:
    """Written out: every field of a result."""
    engine = FakeEngine()
    (yes,) = await score(engine, " yes")
    truth = math.log(law(engine, " yes"))
    assert yes.marginal is not None and yes.marginal.exact
    assert yes.logprob == yes.score == yes.marginal.lower == pytest.approx(truth, abs=1e-6)
    assert yes.marginal.upper == pytest.approx(yes.marginal.lower, abs=1e-9)
    assert yes.logprob_per_byte == pytest.approx(truth / 4, abs=1e-6)
    assert (yes.rank, yes.probability, yes.prefix_of, yes.error) == (1, 1.0, [], None)
    assert yes.model_dump().keys() == {
        *("index", "rank", "score", "logprob", "logprob_per_byte", "probability", "marginal")
    }


async def test_a_candidate_may_be_overrun_unless_an_end_follows() -> None:
    """ " i" is a beginning of " is" and " isn"; with an end it has to be all."""
    engine = FakeEngine()
    (free,) = await score(engine, " i", context="it")
    assert free.logprob == pytest.approx(math.log(law(engine, " i", last="it")), abs=1e-6)
    assert free.logprob > math.log(0.75)
    (ended,) = await score(engine, " i", context="it", append_eos=True)
    truth = law(engine, " i", ended=True, last="it")
    assert ended.logprob == pytest.approx(math.log(truth), abs=1e-6)


async def test_ids_and_text_of_the_same_bytes_score_alike() -> None:
    """The split that a candidate comes in does not matter, nor does that of the context's ids."""
    engine = FakeEngine()
    split = [engine.tokenizer.id(letter) for letter in (" ", "n", "o")]
    text, ids = await score(engine, " no", split, context=engine.tokenizer.encode(CONTEXT))
    assert ids.logprob == pytest.approx(text.logprob, abs=1e-12)
    assert text.prefix_of == [] and ids.prefix_of == []


async def test_ranks_and_what_a_candidate_begins() -> None:
    """By bytes: a candidate that begins others is never less probable."""
    answered = await answer(FakeEngine(), " no", " no no", " yes")
    no, twice, yes = answered.results
    assert [no.rank, twice.rank, yes.rank] == [2, 3, 1]
    assert no.prefix_of == [1] and yes.prefix_of == []
    assert no.logprob is not None and twice.logprob is not None and no.logprob > twice.logprob
    assert answered.off_candidate_mass is None and answered.off_candidate_mass_bounds is None
    ended = await answer(FakeEngine(), " no", " no no", append_eos=True)
    assert [one.prefix_of for one in ended.results] == [[], []]
    assert ended.off_candidate_mass is not None


async def test_what_is_left_for_all_other_texts() -> None:
    """1 minus the sums; an interval where a sum is one."""
    engine = FakeEngine()
    answered = await answer(engine, " yes", " no")
    expected = 1.0 - law(engine, " yes") - law(engine, " no")
    assert answered.off_candidate_mass == pytest.approx(expected, abs=1e-6)
    assert answered.scored_tokens == sum(one.marginal.expanded for one in answered.results)  # type: ignore[union-attr]
    short = await answer(engine, " yes", " no", max_expansions=1)
    assert short.off_candidate_mass is None and short.off_candidate_mass_bounds is not None
    least, most = short.off_candidate_mass_bounds
    assert least <= expected + 1e-6 and expected <= most + 1e-6 and least < most


async def test_a_budget_gives_bounds() -> None:
    """With one path only the context's own row is looked at: the whole candidate as one token."""
    engine = FakeEngine()
    (yes,) = await score(engine, " yes", max_expansions=1)
    assert yes.marginal is not None and not yes.marginal.exact and yes.marginal.expanded == 1
    assert yes.logprob == pytest.approx(math.log(0.5), abs=1e-6)
    assert yes.marginal.lower < math.log(law(engine, " yes")) < yes.marginal.upper


async def test_the_boundary_report_names_the_contexts_end() -> None:
    """Nothing of the context is scored again, and a BOS is there by the tokenizer's rule."""
    report = plan(FakeEngine(), " yes").boundary
    assert (report.policy, report.start_token, report.shift_bytes) == ("marginal", 2, 0)
    assert (report.context_tokens, report.bos_added) == (2, False)
    with_bos = plan(FakeEngine(tokenizer=ToyTokenizer(adds_bos=True)), " yes").boundary
    assert (with_bos.start_token, with_bos.bos_added) == (3, True)


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("normalization", {"normalization": "mean"}),
        ("normalization", {"normalization": "per_byte"}),
        ("normalization", {"normalization": "pmi", "pmi_context": "a"}),
        ("start_token", {"start_token": 2}),
        ("top_n", {"top_n": 1}),
        ("compact", {"compact": True}),
        ("token_logprobs", {"token_logprobs": True}),
        ("top_logprobs", {"top_logprobs": 1}),
        ("max_expansions", {"max_expansions": MAX_MARGINAL_PATHS // 4, "candidates": ["a"] * 5}),
        ("context", {"context": "a" * 64}),
    ],
)
def test_settings_without_a_meaning_are_refused(param: str, body: dict[str, Any]) -> None:
    """By name."""
    with pytest.raises(InvalidQuery) as caught:
        plan(FakeEngine(), " yes", **body)
    assert caught.value.param == param and str(caught.value).startswith(param)


def test_an_end_needs_an_end_token() -> None:
    """A model without one cannot end a candidate."""
    with pytest.raises(InvalidQuery) as caught:
        plan(FakeEngine(end_token_ids=()), " yes", append_eos=True)
    assert caught.value.param == "append_eos"


@pytest.mark.parametrize(
    ("candidate", "kind", "word"),
    [
        ("", InvalidQuery, "empty"),
        ([], InvalidQuery, "empty"),
        ([10**9], TokenIdOutOfRange, "no token id"),
        ([-1], TokenIdOutOfRange, "no token id"),
        ([ToyTokenizer().id(END)], InvalidQuery, "no text"),
        ([ToyTokenizer().vocab_size], InvalidQuery, "no text"),
        ("x" * 63, PathTooLong, "too many"),
        ("xyz" * 4, InvalidQuery, "max_expansions of 12"),
    ],
)
async def test_a_bad_candidate_fails_alone(
    candidate: str | list[int], kind: type[ChainruleError], word: str
) -> None:
    """With its index and its reason; where all or nothing is asked, with the request."""
    engine = FakeEngine()
    bad, good = await score(engine, candidate, " yes", max_expansions=11)
    assert bad.error is not None and word in bad.error.message
    assert bad.error.message.startswith("candidates.0: ") and bad.score is None
    assert good.error is None and good.rank == 1
    for body in ({"all_or_nothing": True}, {"candidates": [candidate]}):
        with pytest.raises(kind):
            plan(engine, candidate, " yes", max_expansions=11, **body)


def test_what_the_search_says_of_a_candidate_is_its_error() -> None:
    """A failure, no probability at all, or a budget that found nothing."""
    planned = plan(FakeEngine(), "a", "b", "c", "d")
    results = (
        DeadlineExceeded("late"),
        MarginalResult(-math.inf, -math.inf, True, 2, 0),
        MarginalResult(-math.inf, -1.0, False, 2, 0),
        found(-1.0),
    )
    *errors, fine = [one.error for one in told(planned, results)]
    codes = [error.code for error in errors if error is not None]
    assert codes == ["deadline_exceeded", "non_finite_logits", "invalid_value"]
    assert errors[2] is not None and "max_expansions is too small" in errors[2].message
    assert fine is None
    with pytest.raises(NonFiniteLogits):
        told(plan(FakeEngine(), "b"), results[1:2])


def test_candidates_within_their_bounds_are_tied() -> None:
    """Uncertainty is numeric error, of the longest path, and what the upper bound adds."""
    planned = plan(FakeEngine(), "a", "b", "c")
    results = (found(-1.0), found(-1.5, -1.2), found(-9.0))
    first, second, third = told(planned, results, numeric_error=(0.01, 0.001))
    assert first.numeric_error == second.numeric_error == pytest.approx(0.03)
    assert (first.tie_group, second.tie_group, third.tie_group) == (None, None, None)
    results = (found(-1.0), found(-1.5, -1.05), found(-9.0))
    first, second, third = told(planned, results, numeric_error=(0.01, 0.001))
    assert (first.tie_group, second.tie_group, third.tie_group) == (1, 1, None)
    assert [one.tie_group for one in told(planned, results)] == [None] * 3


def test_probabilities_lie_within_the_bounds_of_the_sums() -> None:
    """Whatever the sums are; where all are exact there is nothing to bound."""
    planned = plan(FakeEngine(), "a", "b")
    exact = told(planned, (found(-1.0), found(-2.0)))
    assert [one.probability_bounds for one in exact] == [None, None]
    wide = told(planned, (found(-2.0, -0.5), found(-2.0, -1.5)))
    bounds = [one.probability_bounds for one in wide]
    low, high = (1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-1.5)))
    assert bounds[0] == pytest.approx((low, high))
    assert bounds[1] == pytest.approx((1 - high, 1 - low))
    extreme = told(planned, (found(-3000.0, -1.0), found(-3000.0)))
    far = [one.probability_bounds for one in extreme]
    assert far == [pytest.approx((0.5, 1.0)), pytest.approx((0.0, 0.5))]
    alone = told(plan(FakeEngine(), "a"), (found(-3.0, -1.0),))
    assert alone[0].probability_bounds == (1.0, 1.0)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_shares_are_bounded_however_far_the_sums_may_lie_apart(temperature: float) -> None:
    """Where one bound outweighs all else by far, nobody's share is taken for certain."""
    found = [result(-50.0, -0.01), result(-40.0, -40.0), result(-3.0, -2.0), None]
    bounds = _probability_bounds(found, temperature)
    assert bounds[3] is None
    present = [one for one in found if one is not None]
    for place, one in enumerate(present):
        others = [other for other in present if other is not one]
        low = probabilities([one.lower, *(other.upper for other in others)], temperature)[0]
        high = probabilities([one.upper, *(other.lower for other in others)], temperature)[0]
        assert bounds[place] == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))
    sure, _ = _probability_bounds([result(-50.0, -0.01), result(-40.0, -40.0)], 1.0)
    assert sure is not None and sure[0] < 1e-4


def result(lower: float, upper: float) -> MarginalResult:
    return MarginalResult(lower, upper, lower == upper, 1, 1)
