"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Response

from app.dependencies import ServiceDependency
from app.http.json_response import LOOKUP_FAILURES, NOT_SERVED, json_reply
from app.http.unknown_path import unknown_path_message
from app.schemas.models import ModelCard, ModelList

router = APIRouter(tags=["models"], responses=LOOKUP_FAILURES)


@router.get("/v1/models", response_model=ModelList, summary="What is served")
async def list_models(service: ServiceDependency) -> Response:
    """The served model, its limits, its fingerprint and its numeric error."""
    return await json_reply(service.models())


# A hub id holds a slash, so the name takes all that is left of the path.
@router.get(
    "/v1/models/{name:path}",
    response_model=ModelCard,
    summary="One model by name",
    responses=NOT_SERVED,
)
async def get_model(
    name: Annotated[str, Path(description="The model's ``id``.")], service: ServiceDependency
) -> Response:
    """The same of one model."""
    if not name:
        raise HTTPException(404, unknown_path_message("GET", "/v1/models"))
    return await json_reply(service.model(name))
