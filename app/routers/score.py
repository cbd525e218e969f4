"""POST /v1/score."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.dependencies import ServiceDependency
from app.json_route import JsonRoute
from app.routers.reply import WORK_FAILURES, json_reply
from app.schemas.score import ScoreRequest
from app.schemas.score_reply import ScoreResponse

router = APIRouter(tags=["score"], route_class=JsonRoute, responses=WORK_FAILURES)


@router.post(
    "/v1/score",
    response_model=ScoreResponse,
    summary="Log-probabilities of candidates given a context",
)
async def score(request: ScoreRequest, service: ServiceDependency) -> Response:
    """Score every candidate as a whole sequence: log P(candidate | context).

    Results come in the order of the candidates. One that cannot be scored (empty, too long,
    an id that the model does not have) is an error in its own result; the others are scored.
    """
    return await json_reply(await service.score(request))
