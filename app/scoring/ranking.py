"""What depends on all candidates of a request: ranks, probabilities, ties, what is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.scoring.candidate_results import CandidateResult
from app.scoring.plan import ScorePlan
from app.scoring.scored_candidate import ScoredCandidate
from model_runtime import (
    ModelInfo,
    Normalization,
    Pruned,
    TopKWithTies,
    are_apart,
    competition_ranks,
    off_mass,
    probabilities,
    tie_groups,
)

MAX_EXPONENT = 600.0
"""Of a logarithm, so that a sum of exponentials stays a float. A search that was ended may leave
candidates that outweigh what it scored by any factor."""

Bounds = tuple[float, float]
"""The least and the most that a value may be."""


@dataclass(frozen=True, slots=True)
class CandidateRanking:
    """One entry for each candidate, but for ``best``; None where it has none.

    Attributes:
        best: indices of the ranked candidates, best first.
        scores: under the request's normalization.
        errors: what each score may be off by; None too where that is not known.
        ranks, tie_groups: of the ranked ones.
        probabilities: None for all where a candidate was pruned.
        probability_bounds: for all that were scored, where one was pruned.
    """

    best: tuple[int, ...]
    scores: list[float | None]
    errors: list[float | None]
    ranks: list[int | None]
    tie_groups: list[int | None]
    probabilities: list[float | None]
    probability_bounds: list[Bounds | None]

    @classmethod
    def of(
        cls, outcomes: Sequence[CandidateResult], plan: ScorePlan, info: ModelInfo
    ) -> CandidateRanking:
        """Compare the candidates that could be scored."""
        kind = Normalization(plan.request.normalization)
        scores = [o.score(kind) if isinstance(o, ScoredCandidate) else None for o in outcomes]
        errors = _errors(outcomes, kind, info)
        best = _best(scores, errors, plan.request.top_n)
        ranked: list[float | None] = [None] * len(scores)
        for index in best:
            ranked[index] = scores[index]
        known = [error or 0.0 for error in errors]
        temperature = plan.request.temperature
        shares = probabilities(scores, temperature)
        rest = _pruned_weight(plan, outcomes, max(_present(scores), default=0.0))
        return cls(
            best=best,
            scores=scores,
            errors=errors,
            ranks=competition_ranks(ranked),
            tie_groups=[None] * len(scores)
            if info.numeric_error is None
            else tie_groups(ranked, known),
            probabilities=shares if rest is None else [None] * len(scores),
            probability_bounds=[None] * len(scores)
            if rest is None
            else _probability_bounds(rest, scores, shares, temperature),
        )


def off_candidate_mass(
    plan: ScorePlan, outcomes: Sequence[CandidateResult]
) -> float | Bounds | None:
    """What the model gives to everything but the candidates; bounds of it where one was pruned.

    None where it is not 1 minus their sum: see ``ScoreResponse``.
    """
    if plan.joined.shift_bytes:
        return None
    # With an end behind it no path begins another one.
    end = (-1,) if plan.request.append_eos else ()
    found: dict[tuple[int, ...], float] = {}
    pruned: dict[tuple[int, ...], float] = {}
    for candidate, outcome in zip(plan.candidates, outcomes, strict=True):
        if isinstance(outcome, ScoredCandidate):
            found[outcome.planned.token_ids + end] = outcome.logprob
        elif isinstance(outcome, Pruned) and not isinstance(candidate, Exception):
            pruned[candidate.token_ids + end] = -math.inf
    most = off_mass({**found, **pruned})
    if most is None or not pruned:
        return most
    return max(0.0, most - _mass_behind_prefixes(outcomes)), most


def _errors(
    outcomes: Sequence[CandidateResult], kind: Normalization, info: ModelInfo
) -> list[float | None]:
    """Of each score; None where it is not known."""
    if info.numeric_error is None:
        return [None] * len(outcomes)
    largest = info.numeric_error[0]
    return [o.error(largest, kind) if isinstance(o, ScoredCandidate) else None for o in outcomes]


def _best(
    scores: Sequence[float | None], errors: Sequence[float | None], top_n: int | None
) -> tuple[int, ...]:
    scored = [(score, index) for index, score in enumerate(scores) if score is not None]
    if top_n is None:
        return tuple(index for _, index in sorted(scored, key=lambda pair: (-pair[0], pair[1])))
    best = TopKWithTies(top_n)
    for score, index in scored:
        best.add(score, errors[index] or 0.0, index)
    return tuple(place.place for place in best.best)


def _pruned_weight(
    plan: ScorePlan, outcomes: Sequence[CandidateResult], best: float
) -> float | None:
    """At most so much do pruned candidates weigh in the softmax; None where there are none."""
    pruned = [outcome for outcome in outcomes if isinstance(outcome, Pruned)]
    if not pruned:
        return None
    temperature = plan.request.temperature
    if plan.request.normalization == "sum" and temperature <= 1 and _are_apart(plan):
        # All that share a prefix are together at most as probable as it is.
        bounds = [outcome.logprob for outcome in {o.prefix: o for o in pruned}.values()]
    else:
        bounds = [outcome.bound for outcome in pruned]
    weights = (min(MAX_EXPONENT, (bound - best) / temperature) for bound in bounds)
    return math.fsum(map(math.exp, weights))


def _are_apart(plan: ScorePlan) -> bool:
    """Whether no candidate's path, with its end, equals or begins another's."""
    end = (-1,) if plan.request.append_eos else ()
    return are_apart([candidate.token_ids + end for candidate in plan.scorable])


def _probability_bounds(
    rest: float,
    scores: Sequence[float | None],
    shares: Sequence[float | None],
    temperature: float,
) -> list[Bounds | None]:
    """Each share of what was scored, less what the pruned may take of it."""
    best = max(_present(scores), default=0.0)
    mass = math.fsum(math.exp((score - best) / temperature) for score in _present(scores))
    kept = mass / (mass + rest)
    return [None if share is None else (share * kept, share) for share in shares]


def _mass_behind_prefixes(outcomes: Sequence[CandidateResult]) -> float:
    """At most so probable are the pruned candidates together, whose paths begin no other."""
    prefixes = {o.prefix: o.logprob for o in outcomes if isinstance(o, Pruned)}
    return math.fsum(math.exp(logprob) for logprob in prefixes.values())


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
