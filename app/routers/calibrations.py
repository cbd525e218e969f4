"""GET /v1/calibrations, and GET and DELETE /v1/calibrations/{name}."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Path, Response

from app.calibration.labelled import QUESTION_TYPES
from app.decisions.template import PROMPT_TEMPLATE
from app.dependencies import CalibrationsDependency, EngineDependency, HasKeysDependency
from app.errors.table import KeyNeeded
from app.http.json_response import LOOKUP_FAILURES, Failures, json_reply
from app.schemas.calibration import (
    Calibration,
    CalibrationList,
    CalibrationSummary,
    RemovedCalibration,
)
from app.schemas.error import ErrorResponse
from model_runtime import ModelInfo

router = APIRouter(tags=["calibrations"], responses=LOOKUP_FAILURES)

UNKNOWN: Final[Failures] = {
    404: {"model": ErrorResponse, "description": "There is no such calibration"},
}
PROTECTED: Final[Failures] = {
    403: {"model": ErrorResponse, "description": "No API keys, or it is the operator's"},
}


@router.get(
    "/v1/calibrations",
    response_model=CalibrationList,
    summary="Calibrations that decisions may name",
)
async def list_calibrations(
    engine: EngineDependency, calibrations: CalibrationsDependency
) -> Response:
    """What was read from the folder at start and what was kept since, by name."""
    data = [_summary(name, one, engine.info) for name, one in calibrations.held().items()]
    return await json_reply(CalibrationList(data=data))


@router.get(
    "/v1/calibrations/{name}",
    response_model=Calibration,
    summary="One calibration by name",
    responses=UNKNOWN,
)
async def get_calibration(
    name: Annotated[str, Path(description="What it is kept by.")],
    calibrations: CalibrationsDependency,
) -> Response:
    """The whole of it, as its file has it."""
    return await json_reply(calibrations.find(name))


@router.delete(
    "/v1/calibrations/{name}",
    response_model=RemovedCalibration,
    summary="Keep a calibration no longer",
    responses=UNKNOWN | PROTECTED,
)
async def remove_calibration(
    name: Annotated[str, Path(description="What it is kept by.")],
    calibrations: CalibrationsDependency,
    has_keys: HasKeysDependency,
) -> Response:
    """Its file is removed, too. Like keeping one it takes an API key."""
    if not has_keys:
        raise KeyNeeded("A server without API keys removes no calibration.", "name")
    await asyncio.to_thread(calibrations.remove, name)
    return await json_reply(RemovedCalibration(name=name))


def _summary(name: str, calibration: Calibration, info: ModelInfo) -> CalibrationSummary:
    fits = (info.fingerprint, PROMPT_TEMPLATE)
    return CalibrationSummary(
        name=name,
        model=calibration.model,
        fingerprint=calibration.fingerprint,
        prompt_template=calibration.prompt_template,
        debias=calibration.debias,
        error_rate=calibration.error_rate,
        questions=[
            kind for kind in QUESTION_TYPES if getattr(calibration.questions, kind) is not None
        ],
        usable=(calibration.fingerprint, calibration.prompt_template) == fits,
    )
