"""``top_n`` of POST /v1/score: the search that leaves out what cannot be among the best."""

from __future__ import annotations

from app.schemas.score import ScoreRequest
from app.schemas.score_response import TopReport
from app.scoring.plan import PlannedCandidate, ScorePlan
from model_runtime import (
    ModelInfo,
    Normalization,
    RankedCandidate,
    TopCandidates,
    TopResult,
    divisor,
    normalized_error,
)


def top_search(info: ModelInfo, plan: ScorePlan) -> TopCandidates | None:
    """The search for the best; None where everything is scored.

    That is without ``top_n``, and where scores are differences, which have no bound.
    """
    request = plan.request
    kind = Normalization(request.normalization)
    if request.top_n is None or kind.has_baseline:
        return None
    token_error = 0.0 if info.numeric_error is None else info.numeric_error[0]

    def ranked(candidate: PlannedCandidate) -> RankedCandidate:
        size, alpha = candidate.size, plan.alpha
        return RankedCandidate(
            path=candidate.token_ids,
            divisor=divisor(kind, size, alpha),
            error=normalized_error(token_error, kind, size, alpha=alpha),
        )

    asked = plan.scorable[0].asked
    return TopCandidates(
        asked.prefix,
        [ranked(candidate) for candidate in plan.scorable],
        request.top_n,
        vocab_size=info.vocab_size,
        end_ids=asked.end_ids,
        top_k=asked.top_k,
    )


def top_report(request: ScoreRequest, ranked: int, found: TopResult | None) -> TopReport | None:
    """What the response says of ``top_n``; ``found`` is what its search came to, if it had one."""
    if request.top_n is None:
        return None
    return TopReport(
        requested=request.top_n,
        ranked=ranked,
        pruned=0 if found is None else found.pruned,
        certified=found is None or found.certified,
        search="all" if found is None else "best_first",
        expanded=None if found is None else found.expanded,
    )
