"""The receipt of POST /v1/score: what was scored, in token ids, and what came out."""

from __future__ import annotations

from collections.abc import Sequence

from app import version
from app.requests.worker_threads import check_wanted
from app.schemas.receipt import Receipt, ReceiptBaseline, ReceiptCandidate
from app.scoring.candidate_results import CandidateResult
from app.scoring.plan import ScorePlan
from app.scoring.scored_candidate import ScoredCandidate
from model_runtime import ModelInfo, Normalization, total


def build_receipt(info: ModelInfo, plan: ScorePlan, outcomes: Sequence[CandidateResult]) -> Receipt:
    """Of the candidates that were scored to the end; the others are named only."""
    request = plan.request
    kind = Normalization(request.normalization)
    scored = {i: one for i, one in enumerate(outcomes) if isinstance(one, ScoredCandidate)}
    ends = info.end_token_ids if request.append_eos else ()
    return Receipt(
        chainrule_version=version(),
        model=info.name,
        fingerprint=info.fingerprint,
        dtype=info.dtype,
        kernels=info.kernels,
        prefixes=[list(path) for path in (plan.joined.prefix, *plan.baseline.prefixes)],
        end_token_ids=list(ends),
        normalization=request.normalization,
        gnmt_alpha=plan.alpha if kind is Normalization.GNMT else None,
        candidates=[_candidate(index, one, kind) for index, one in scored.items()],
        left_out=[index for index in range(len(outcomes)) if index not in scored],
    )


def _candidate(index: int, scored: ScoredCandidate, kind: Normalization) -> ReceiptCandidate:
    check_wanted()
    divisors = {
        Normalization.PER_CHAR: scored.size.characters,
        Normalization.PER_BYTE: scored.size.byte_count,
    }
    return ReceiptCandidate(
        index=index,
        token_ids=list(scored.planned.token_ids),
        logprobs=list(scored.logprobs),
        logprob=scored.logprob,
        score=scored.score(kind),
        divisor=divisors.get(kind),
        baselines=[
            ReceiptBaseline(logprobs=list(logprobs), logprob=total(logprobs))
            for logprobs in scored.under_others
        ],
    )
