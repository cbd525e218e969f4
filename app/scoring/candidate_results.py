"""What became of each candidate of a request: the model's answers, put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from app.requests.item_errors import raise_if_failed, with_candidate_index
from app.requests.worker_threads import check_wanted
from app.scoring.plan import PlannedCandidate, ScorePlan
from app.scoring.scored_candidate import ScoredCandidate
from model_runtime import (
    ChainruleError,
    LogprobResult,
    NonFiniteLogits,
    PathScore,
    Pruned,
    TopResult,
)

CandidateResult = ScoredCandidate | Pruned | ChainruleError
"""A score, how far a candidate was read that is not among the best, or why there is neither."""

Answers = Sequence[LogprobResult | ChainruleError] | TopResult
"""To the plan's queries, in order, or what the search over its good candidates found."""


def candidate_results(plan: ScorePlan, answers: Answers) -> list[CandidateResult]:
    """One for each candidate of the request, in its order.

    Raises:
        ChainruleError: nothing could be scored, or something could not be and the request is
            all or nothing.
    """
    if isinstance(answers, TopResult):
        outcomes = list(_of_search(plan, answers))
    else:
        outcomes = list(_of_queries(plan, answers))
    raise_if_failed(outcomes, plan.request.all_or_nothing)
    return outcomes


def _of_queries(
    plan: ScorePlan, answers: Sequence[LogprobResult | ChainruleError]
) -> Iterator[CandidateResult]:
    rest = iter(answers)
    asked = 1 + len(plan.baseline.prefixes)
    for index, candidate in enumerate(plan.candidates):
        check_wanted()
        if isinstance(candidate, ChainruleError):
            yield candidate
        else:
            yield _outcome(index, candidate, list(islice(rest, asked)), plan.alpha)


def _of_search(plan: ScorePlan, found: TopResult) -> Iterator[CandidateResult]:
    ends = iter(found.ends)
    for index, candidate in enumerate(plan.candidates):
        check_wanted()
        if isinstance(candidate, ChainruleError):
            yield candidate
            continue
        end = next(ends)
        if isinstance(end, PathScore):
            yield ScoredCandidate.read(candidate, end.answer(), (), plan.alpha)
        else:
            yield with_candidate_index(end, index) if isinstance(end, ChainruleError) else end


def _outcome(
    index: int,
    candidate: PlannedCandidate,
    answers: Sequence[LogprobResult | ChainruleError],
    alpha: float,
) -> CandidateResult:
    results: list[LogprobResult] = []
    for answer in answers:
        if isinstance(answer, ChainruleError):
            return with_candidate_index(answer, index)
        results.append(answer)
    try:
        return ScoredCandidate.read(candidate, results[0], results[1:], alpha)
    except NonFiniteLogits as error:
        return error
