"""Every candidate of a large request, in columns."""

from __future__ import annotations

from collections.abc import Sequence

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


def compact_scores(outcomes: Sequence[CandidateResult], ranking: CandidateRanking) -> CompactScores:
    """The ranked best first, the others in the request's order."""
    ranked = set(ranking.best)
    pruned = [(i, one.bound) for i, one in enumerate(outcomes) if isinstance(one, Pruned)]
    others = [
        (index, score)
        for index, score in enumerate(ranking.scores)
        if score is not None and index not in ranked
    ]
    return CompactScores(
        ranked=_ranked(outcomes, ranking),
        unranked=UnrankedColumns(index=[i for i, _ in others], score=[s for _, s in others]),
        pruned=PrunedColumns(index=[i for i, _ in pruned], bound=[b for _, b in pruned]),
        failed=_failed(outcomes),
    )


def _ranked(outcomes: Sequence[CandidateResult], ranking: CandidateRanking) -> RankedColumns:
    best = [(i, one) for i in ranking.best if isinstance(one := outcomes[i], ScoredCandidate)]
    return RankedColumns(
        index=[i for i, _ in best],
        rank=[rank for i, _ in best if (rank := ranking.ranks[i]) is not None],
        tie_group=[ranking.tie_groups[i] for i, _ in best],
        score=[score for i, _ in best if (score := ranking.scores[i]) is not None],
        logprob=[scored.logprob for _, scored in best],
        numeric_error=[ranking.errors[i] for i, _ in best],
        probability=[ranking.probabilities[i] for i, _ in best],
        probability_bounds=[ranking.probability_bounds[i] for i, _ in best],
    )


def _failed(outcomes: Sequence[CandidateResult]) -> FailedColumns:
    failed = [
        (index, error_object(one))
        for index, one in enumerate(outcomes)
        if isinstance(one, ChainruleError)
    ]
    return FailedColumns(
        index=[index for index, _ in failed],
        code=[error.code for _, error in failed],
        message=[error.message for _, error in failed],
    )
