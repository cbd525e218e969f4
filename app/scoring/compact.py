"""Every candidate of a large request, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from app.errors.table import error_object
from app.schemas.score_response import (
    CompactScores,
    FailedColumns,
    PrunedColumns,
    RankedColumns,
    UnrankedColumns,
)
from app.scoring.candidate_results import CandidateResult
from app.scoring.ranking import CandidateRanking
from app.scoring.scored_candidate import ScoredCandidate
from model_runtime import ChainruleError, Pruned

T = TypeVar("T")


def compact_scores(outcomes: Sequence[CandidateResult], ranking: CandidateRanking) -> CompactScores:
    """The ranked best first, the others in the request's order."""
    ranked = set(ranking.best)
    behind = [i for i, score in enumerate(ranking.scores) if score is not None and i not in ranked]
    pruned = [(i, one.bound) for i, one in enumerate(outcomes) if isinstance(one, Pruned)]
    return CompactScores(
        ranked=_ranked(outcomes, ranking),
        unranked=UnrankedColumns(index=behind, score=_present(ranking.scores, behind))
        if behind
        else None,
        pruned=PrunedColumns(index=[i for i, _ in pruned], bound=[b for _, b in pruned])
        if pruned
        else None,
        failed=_failed(outcomes),
    )


def _ranked(outcomes: Sequence[CandidateResult], ranking: CandidateRanking) -> RankedColumns:
    best = ranking.best
    ties = [ranking.tie_groups[i] for i in best]
    return RankedColumns(
        index=list(best),
        rank=_present(ranking.ranks, best),
        tie_group=ties if any(ties) else None,
        score=_present(ranking.scores, best),
        logprob=[one.logprob for i in best if isinstance(one := outcomes[i], ScoredCandidate)],
        numeric_error=_present(ranking.errors, best) or None,
        probability=_present(ranking.probabilities, best) or None,
        probability_bounds=_present(ranking.probability_bounds, best) or None,
    )


def _present(values: Sequence[T | None], indices: Sequence[int]) -> list[T]:
    return [value for i in indices if (value := values[i]) is not None]


def _failed(outcomes: Sequence[CandidateResult]) -> FailedColumns | None:
    failed = [
        (index, error_object(one))
        for index, one in enumerate(outcomes)
        if isinstance(one, ChainruleError)
    ]
    if not failed:
        return None
    return FailedColumns(
        index=[index for index, _ in failed],
        code=[error.code for _, error in failed],
        message=[error.message for _, error in failed],
    )
