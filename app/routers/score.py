"""POST /v1/score."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.dependencies import ServiceDependency
from app.json_route import JsonRoute
from app.routers.reply import json_reply
from app.schemas.score import ScoreRequest, ScoreResponse

router = APIRouter(tags=["score"], route_class=JsonRoute)


@router.post(
    "/v1/score",
    response_model=ScoreResponse,
    summary="Log-probabilities of candidates given a context",
)
async def score(request: ScoreRequest, service: ServiceDependency) -> Response:
    """Log-probabilities of candidates given a context."""
    return json_reply(await service.score(request))
