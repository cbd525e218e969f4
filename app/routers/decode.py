"""POST /v1/decode."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.dependencies import ServiceDependency
from app.json_route import JsonRoute
from app.routers.reply import json_reply
from app.schemas.decode import DecodeRequest, DecodeResponse

router = APIRouter(tags=["decode"], route_class=JsonRoute)


@router.post("/v1/decode", response_model=DecodeResponse, summary="The most probable continuations")
async def decode(request: DecodeRequest, service: ServiceDependency) -> Response:
    """The most probable continuations."""
    return json_reply(await service.decode(request))
