"""POST /v1/decode."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.dependencies import ServiceDependency
from app.json_route import JsonRoute
from app.routers.reply import WORK_FAILURES, json_reply
from app.schemas.decode import DecodeRequest, DecodeResponse

router = APIRouter(tags=["decode"], route_class=JsonRoute, responses=WORK_FAILURES)


@router.post("/v1/decode", response_model=DecodeResponse, summary="The most probable continuations")
async def decode(request: DecodeRequest, service: ServiceDependency) -> Response:
    """Search for the most probable continuations, by greedy or beam search.

    Every token's log-probability is the model's own, also where an end was not allowed yet.
    """
    return json_reply(await service.decode(request))
