"""The verb: collect, then explain."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from app.audit.collect import EvidenceCollector, with_cost
from app.audit.diagnosis.service import DiagnosisService, check_reported
from app.audit.evidence import Evidence, sum_of
from app.audit.greedy_gap import favourite_candidate, favourite_completion
from app.audit.pairwise import pair_audits
from app.audit.views import audited_candidates, views
from app.requests.deadline import Deadline
from app.requests.limits import Limits
from app.schemas.audit import AuditRequest
from app.schemas.audit_response import AuditedCompletion, AuditResponse
from app.schemas.decode_response import ComparedStrategy
from app.schemas.diagnosis import Diagnosis
from app.schemas.response import Usage
from app.service import ScoringService
from model_runtime import Engine


class AuditService:
    """Explains scores, by asking the scoring service as any caller would.

    Args:
        service: as the request's tenant has it.
        engine: the same service's.
        limits: the operator's bounds.
    """

    def __init__(self, service: ScoringService, engine: Engine, limits: Limits) -> None:
        self._service = service
        self._engine = engine
        self._limits = limits

    def deadline(self, request: AuditRequest) -> Deadline:
        """When the request's time is over."""
        return self._service.deadline(request)

    async def audit(self, request: AuditRequest) -> AuditResponse:
        """What the candidates' scores are made of.

        Raises:
            InvalidQuery: what /v1/score refuses, more tokens than an audit takes, or reported
                numbers of other candidates.
            DeadlineExceeded: the request's time ran out, over all of its questions.
        """
        began, created = time.perf_counter(), int(time.time())
        if request.reported is not None:
            check_reported(request.reported, len(request.candidates))
        deadline = self.deadline(request)
        collector = EvidenceCollector(self._service, self._engine, self._limits, request, deadline)
        evidence = await collector.collect()
        diagnosis, usage = await self._diagnosed(evidence, deadline)
        parts = await self._service.run_blocking(request, lambda *_: _explained(evidence))
        info = self._engine.info
        return AuditResponse(
            id=f"audit-{uuid4().hex}",
            created=created,
            model=info.name,
            fingerprint=info.fingerprint,
            numeric_error=info.numeric_error and info.numeric_error[0],
            usage=usage,
            timings_ms=evidence.scores.timings_ms.model_copy(
                update={"total": 1000 * (time.perf_counter() - began)}
            ),
            boundary=evidence.scores.boundary,
            diagnosis=diagnosis,
            **parts,
        )

    async def _diagnosed(
        self, evidence: Evidence, deadline: Deadline
    ) -> tuple[Diagnosis | None, Usage]:
        """What reported numbers come from, if there are any, and what all of the audit has cost."""
        reported = evidence.request.reported
        if reported is None:
            return None, evidence.usage
        diagnosing = DiagnosisService(
            self._service, self._engine.info, evidence, reported, deadline
        )
        found = await diagnosing.diagnose()
        return found, with_cost(evidence.usage, diagnosing.spent)


def _explained(evidence: Evidence) -> dict[str, Any]:
    """The fields that are an audit's own."""
    return {
        "candidates": audited_candidates(evidence),
        "views": views(evidence),
        "pairs": pair_audits(evidence),
        "completions": _completions(evidence),
        "certificate": evidence.decoded.certificate,
        "among_candidates": favourite_candidate(evidence),
        "among_completions": favourite_completion(evidence),
    }


def _completions(evidence: Evidence) -> list[AuditedCompletion]:
    best = max(map(sum_of, evidence.scored))
    return [
        AuditedCompletion(
            strategy=entry.strategy,
            text=entry.sequence and entry.sequence.text,
            token_ids=entry.sequence.token_ids if entry.sequence else [],
            logprob=entry.total,
            candidate=_same_candidate(evidence, entry),
            above_best_candidate=None if entry.total is None else entry.total - best,
            search_error=entry.search_error,
            reason=entry.reason,
        )
        for entry in evidence.decoded.compared or ()
    ]


def _same_candidate(evidence: Evidence, entry: ComparedStrategy) -> int | None:
    """The first candidate of exactly these tokens, an appended end among them."""
    found = entry.sequence.token_ids if entry.sequence else []
    return next(
        (one.index for one in evidence.scored if [t.id for t in one.tokens or ()] == found), None
    )
