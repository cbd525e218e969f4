"""POST /v1/next_token."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.dependencies import ServiceDependency
from app.json_route import JsonRoute
from app.routers.reply import json_reply
from app.schemas.next_token import NextTokenRequest, NextTokenResponse

router = APIRouter(tags=["next_token"], route_class=JsonRoute)


@router.post(
    "/v1/next_token", response_model=NextTokenResponse, summary="The distribution of the next token"
)
async def next_token(request: NextTokenRequest, service: ServiceDependency) -> Response:
    """The distribution of the next token."""
    return json_reply(await service.next_token(request))
