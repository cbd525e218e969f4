"""POST /v1/next_token."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.dependencies import FactsDependency, ServiceDependency
from app.http.json_body import QueuedRoute
from app.http.json_response import WORK_FAILURES, json_reply
from app.schemas.next_token import NextTokenRequest, NextTokenResponse

router = APIRouter(tags=["next_token"], route_class=QueuedRoute, responses=WORK_FAILURES)


@router.post(
    "/v1/next_token", response_model=NextTokenResponse, summary="The distribution of the next token"
)
async def next_token(
    request: NextTokenRequest, service: ServiceDependency, facts: FactsDependency
) -> Response:
    """List the tokens that may come next: the most probable ones, and any that are chosen.

    Chosen are ids, or labels that are exactly one token behind this context. Longer ones are
    for /v1/score.
    """
    answer = await service.next_token(request)
    facts.update(answer.usage.model_dump())
    return await json_reply(answer, service.deadline(request))
