"""POST /v1/score with boundary ``marginal``, second half: what was found to scores and ranks.

A score is the lower bound; what the upper one adds counts as uncertainty, beside numeric error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from app.requests.item_errors import raise_if_failed, with_candidate_index
from app.schemas.score_response import CandidateScore, Marginal
from app.scoring.marginal_plan import MarginalPlan, MarginalPlanned
from app.scoring.response import ScoreBody, failed_or_pruned
from model_runtime import (
    ChainruleError,
    InvalidQuery,
    MarginalAnswer,
    MarginalResult,
    ModelInfo,
    NonFiniteLogits,
    competition_ranks,
    off_mass,
    prefix_of,
    probabilities,
    tie_groups,
)

Interval = tuple[float, float]


def build_marginal(
    info: ModelInfo, plan: MarginalPlan, results: Sequence[MarginalAnswer]
) -> ScoreBody:
    """What was found as the response shows it; token paths count as scored tokens.

    Raises:
        ChainruleError: as ``marginal_scores``.
    """
    scores = marginal_scores(info, plan, results)
    mass = marginal_off_mass(plan, scores)
    return ScoreBody(
        results=scores,
        off_candidate_mass=mass if isinstance(mass, float) else None,
        off_candidate_mass_bounds=mass if isinstance(mass, tuple) else None,
        scored_tokens=sum(one.expanded for one in results if isinstance(one, MarginalResult)),
    )


def marginal_scores(
    info: ModelInfo, plan: MarginalPlan, results: Sequence[MarginalAnswer]
) -> list[CandidateScore]:
    """Results in the order of the request's candidates.

    Raises:
        ChainruleError: nothing could be scored, or something could not be and the request is
            all or nothing.
    """
    outcomes = list(_outcomes(plan, results))
    raise_if_failed(outcomes, plan.request.all_or_nothing)
    comparison = _Comparison.of(plan, outcomes, info)
    return [
        failed_or_pruned(index, outcome)
        if isinstance(outcome, ChainruleError)
        else _scored(index, plan, outcome, comparison)
        for index, outcome in enumerate(outcomes)
    ]


def marginal_off_mass(
    plan: MarginalPlan, results: Sequence[CandidateScore]
) -> float | Interval | None:
    """What the model gives to texts that begin with no candidate; where it lies, if not exact.

    None where a candidate begins another one.
    """
    # With an end behind it no text begins another one.
    end = (-1,) if plan.request.append_eos else ()
    events = {
        (*candidate.searched.content, *end): result.marginal
        for candidate, result in zip(plan.candidates, results, strict=True)
        if isinstance(candidate, MarginalPlanned) and result.marginal is not None
    }
    most = off_mass({text: found.lower for text, found in events.items()})
    least = off_mass({text: found.upper for text, found in events.items()})
    if most is None or least is None or all(found.exact for found in events.values()):
        return most
    return least, most


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What depends on all candidates of a request; one entry for each."""

    ranks: list[int | None]
    probabilities: list[float | None]
    bounds: list[Interval | None]
    errors: list[float | None]
    tie_groups: list[int | None]
    prefix_of: list[tuple[int, ...]]

    @classmethod
    def of(
        cls, plan: MarginalPlan, outcomes: Sequence[MarginalAnswer], info: ModelInfo
    ) -> _Comparison:
        found = [one if isinstance(one, MarginalResult) else None for one in outcomes]
        scores = [None if one is None else one.lower for one in found]
        errors = [_error(one, info) for one in found]
        ties: list[int | None] = [None] * len(found)
        if info.numeric_error is not None:
            ties = tie_groups(
                scores, [_uncertainty(*both) for both in zip(found, errors, strict=True)]
            )
        return cls(
            competition_ranks(scores),
            probabilities(scores, plan.request.temperature),
            _probability_bounds(found, plan.request.temperature),
            errors,
            ties,
            prefix_of(_texts(plan, found)),
        )


def _outcomes(plan: MarginalPlan, results: Sequence[MarginalAnswer]) -> Iterator[MarginalAnswer]:
    rest = iter(results)
    for index, candidate in enumerate(plan.candidates):
        if isinstance(candidate, ChainruleError):
            yield candidate
            continue
        result = next(rest)
        if isinstance(result, ChainruleError):
            yield with_candidate_index(result, index)
        elif result.lower > -math.inf:
            yield result
        elif result.exact:
            yield NonFiniteLogits("the model gives a candidate no probability at all")
        else:
            message = f"{result.expanded} token paths found no way to spell it; max_expansions"
            yield with_candidate_index(InvalidQuery(f"{message} is too small"), index)


def _error(result: MarginalResult | None, info: ModelInfo) -> float | None:
    """Of a sum over token paths; that of the longest of them, as errors may all be alike."""
    if result is None or info.numeric_error is None:
        return None
    return info.numeric_error[0] * result.longest


def _uncertainty(result: MarginalResult | None, error: float | None) -> float:
    return 0.0 if result is None or error is None else error + result.upper - result.lower


def _texts(
    plan: MarginalPlan, found: Sequence[MarginalResult | None]
) -> list[tuple[int, ...] | None]:
    """The bytes of the candidates that may begin others: with an end behind it none does."""
    return [
        tuple(candidate.searched.content)
        if isinstance(candidate, MarginalPlanned)
        and one is not None
        and not plan.request.append_eos
        else None
        for candidate, one in zip(plan.candidates, found, strict=True)
    ]


def _probability_bounds(
    found: Sequence[MarginalResult | None], temperature: float
) -> list[Interval | None]:
    """Where each probability lies, whatever the sums are; None where all of them are exact."""
    present = [one for one in found if one is not None]
    if all(one.exact for one in present):
        return [None] * len(found)
    if len(present) == 1:
        return [None if one is None else (1.0, 1.0) for one in found]
    low = [one.lower / temperature for one in present]
    high = [one.upper / temperature for one in present]
    bounds = zip(_shares(low, high), _shares(high, low), strict=True)
    return [None if one is None else next(bounds) for one in found]


def _shares(own: Sequence[float], others: Sequence[float]) -> Iterator[float]:
    """The share of each candidate where it weighs exp(own) and every other one exp(others).

    The others are added up, never taken off a sum that one of them may dominate.
    """
    before = [-math.inf, *accumulate(others, _log_add)]
    behind = [-math.inf, *accumulate(reversed(others), _log_add)]
    for place, weight in enumerate(own):
        rest = _log_add(before[place], behind[len(others) - 1 - place])
        yield math.exp(min(0.0, weight - _log_add(weight, rest)))


def _log_add(one: float, other: float) -> float:
    """Log of the sum of two weights."""
    most = max(one, other)
    if most == -math.inf:
        return most
    return most + math.log1p(math.exp(min(one, other) - most))


def _scored(
    index: int, plan: MarginalPlan, result: MarginalResult, comparison: _Comparison
) -> CandidateScore:
    candidate = plan.candidates[index]
    if isinstance(candidate, ChainruleError):
        raise RuntimeError("a candidate without a text was scored: please report this")
    return CandidateScore(
        index=index,
        rank=comparison.ranks[index],
        tie_group=comparison.tie_groups[index],
        score=result.lower,
        numeric_error=comparison.errors[index],
        logprob=result.lower,
        logprob_per_byte=result.lower / candidate.size,
        probability=comparison.probabilities[index],
        probability_bounds=comparison.bounds[index],
        prefix_of=list(comparison.prefix_of[index]),
        marginal=Marginal(
            lower=result.lower,
            upper=result.upper,
            exact=result.exact,
            expanded=result.expanded,
            normalized=candidate.normalized,
        ),
    )
