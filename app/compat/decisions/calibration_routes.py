"""POST /v1/calibrations: labelled questions in the shape of OpenAI's decisions."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import starmap
from typing import Final
from uuid import uuid4

from fastapi import APIRouter, Response

from app.calibration.fit import check_counts, fit_questions
from app.calibration.labelled import LabelledDecision
from app.calibration.scoring import LabelledInput, score_labelled
from app.calibration.store import CalibrationStore
from app.compat.decisions.calibration_request import CalibrationRequest, LabelledQuestion
from app.compat.decisions.questions import input_text, questions_of
from app.compat.decisions.request import DecisionRequest
from app.decisions.orders import order_count
from app.decisions.template import PROMPT_TEMPLATE
from app.dependencies import (
    CalibrationsDependency,
    FactsDependency,
    HasKeysDependency,
    ServiceDependency,
)
from app.errors.table import CalibrationNotStored, KeyNeeded, error_object
from app.http.json_body import QueuedRoute
from app.http.json_response import WORK_FAILURES, Failures, json_reply
from app.schemas.bounds import MAX_CALIBRATION_PATHS
from app.schemas.calibration import Calibration, FittedCalibration
from app.schemas.debias import Debias
from app.schemas.error import ErrorResponse
from app.service import ScoringService
from app.telemetry.request_facts import Facts
from model_runtime import InvalidQuery, ModelInfo

logger = logging.getLogger(__name__)

router = APIRouter(tags=["calibrations"], route_class=QueuedRoute)

KEEPING_FAILURES: Final[Failures] = {
    **WORK_FAILURES,
    403: {
        "model": ErrorResponse,
        "description": "To be kept, and the server has no API keys, or the name is the operator's",
    },
    409: {"model": ErrorResponse, "description": "There is one of this name, or no room"},
}


@router.post(
    "/v1/calibrations",
    response_model=FittedCalibration,
    summary="Fit probabilities of decisions to labelled questions",
    responses=KEEPING_FAILURES,
)
async def calibrate(
    request: CalibrationRequest,
    service: ServiceDependency,
    calibrations: CalibrationsDependency,
    has_keys: HasKeysDependency,
    facts: FactsDependency,
) -> Response:
    """Fit a temperature or a curve to questions whose answers are known, and the threshold of
    prediction sets that lack the right option no more often than was asked for.

    The questions are scored as POST /v1/decisions scores them. The answer holds the calibration,
    which is also the content of its file, and how good it is on questions that it was not fitted
    to. With a ``name`` it is kept, for requests to name; that takes an API key.
    """
    if request.name is None:
        return await _reply(service, request, await _fit(service, request, facts))
    if not has_keys:
        raise KeyNeeded("A server without API keys keeps no calibration of a client's.", "name")
    with calibrations.reserved(request.name, overwrite=request.overwrite):
        answer = await _fit(service, request, facts)
        kept = await _keep(service, calibrations, request, answer)
    return await _reply(service, request, kept)


async def _reply(
    service: ScoringService, request: CalibrationRequest, answer: FittedCalibration
) -> Response:
    return await json_reply(answer, service.deadline(request.serving_options))


async def _fit(
    service: ScoringService, request: CalibrationRequest, facts: Facts
) -> FittedCalibration:
    options = request.serving_options
    labelled = await service.run_blocking(
        options, lambda *_: list(starmap(_labelled, enumerate(request.lines)))
    )
    check_counts((one.question.kind for one in labelled), request.error_rate)
    _check_paths(labelled, request.debias)
    decisions, usage = await score_labelled(service, options, labelled, request.debias)
    facts.update(usage.model_dump())
    calibration = await service.run_blocking(
        options, lambda _, info: _fitted(request, decisions, info)
    )
    return FittedCalibration(
        id=f"calibration-{uuid4().hex}",
        created=int(time.time()),
        calibration=calibration,
        usage=usage,
    )


def _labelled(place: int, line: LabelledQuestion) -> LabelledInput:
    request = DecisionRequest.model_construct(input=line.input, questions=[line.question])
    (question,) = questions_of(request)
    param = f"lines.{place}"
    question = replace(question, param=f"{param}.question")
    return LabelledInput(input_text(request), question, line.right, param)


def _check_paths(labelled: Sequence[LabelledInput], debias: Debias) -> None:
    paths = sum(len(one.question.options) * order_count(one.question, debias) for one in labelled)
    if paths > MAX_CALIBRATION_PATHS:
        raise InvalidQuery(
            f"all options in all their orders are {paths}; there may be {MAX_CALIBRATION_PATHS}",
            "lines",
        )


def _fitted(
    request: CalibrationRequest, decisions: list[LabelledDecision], info: ModelInfo
) -> Calibration:
    method = None if request.method == "auto" else request.method
    return Calibration(
        model=info.name,
        fingerprint=info.fingerprint,
        prompt_template=PROMPT_TEMPLATE,
        debias=request.debias,
        error_rate=request.error_rate,
        questions=fit_questions(decisions, method, request.error_rate),
    )


async def _keep(
    service: ScoringService,
    calibrations: CalibrationStore,
    request: CalibrationRequest,
    answer: FittedCalibration,
) -> FittedCalibration:
    """The answer, which says whether it is kept: what was fitted is not lost to a full disk."""
    name = request.name or ""
    try:
        await service.run_blocking(
            request.serving_options, lambda *_: calibrations.keep(name, answer.calibration)
        )
    except CalibrationNotStored as error:
        logger.warning("calibration not kept", extra={"error": str(error)})
        return answer.model_copy(update={"not_kept": error_object(error).message})
    return answer.model_copy(update={"name": name})
