"""POST /v1/audit."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.dependencies import AuditDependency, FactsDependency
from app.http.json_body import QueuedRoute
from app.http.json_response import WORK_FAILURES, json_reply
from app.schemas.audit import AuditRequest
from app.schemas.audit_response import AuditResponse

router = APIRouter(tags=["audit"], route_class=QueuedRoute, responses=WORK_FAILURES)


@router.post(
    "/v1/audit",
    response_model=AuditResponse,
    summary="What scores are made of, and what decides between candidates",
)
async def audit(
    request: AuditRequest, service: AuditDependency, facts: FactsDependency
) -> Response:
    """Take candidates' scores apart.

    The answer lists every token with its log-probability, rank, entropy and best alternative;
    says how each candidate met the context and what it scores under every policy; compares
    candidates token by token; searches for better completions; and shows the loss that training
    would report beside what rankings use. Of ``timings_ms`` only ``total`` covers all of these
    questions, the others are those of the scores; ``usage`` adds up all.
    """
    answer = await service.audit(request)
    facts.update(answer.usage.model_dump())
    return await json_reply(answer, service.deadline(request))
