"""GET /v1/calibrations and /v1/calibrations/{name}."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Response

from app.calibration.labelled import QUESTION_TYPES
from app.decisions.prompts import PROMPT_TEMPLATE
from app.dependencies import CalibrationsDependency, EngineDependency
from app.http.json_response import LOOKUP_FAILURES, Failures, json_reply
from app.schemas.calibration import Calibration, CalibrationList, CalibrationSummary
from app.schemas.error import ErrorResponse
from model_runtime import ModelInfo

router = APIRouter(tags=["calibrations"], responses=LOOKUP_FAILURES)

UNKNOWN: Final[Failures] = {
    404: {"model": ErrorResponse, "description": "There is no such calibration"},
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
