"""POST /v1/systemone: named questions with a closed set of answers, about one state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Response

from app.calibration.decision import NamedCalibration, calibrated, find_calibration
from app.compat.batch_result import unwrap_results
from app.compat.systemone.content import content_text
from app.compat.systemone.questions import answer_to, questions_of
from app.compat.systemone.request import SystemOneRequest
from app.compat.systemone.response import SystemOneResponse, SystemOneUsage
from app.decisions.answers import read_decisions
from app.decisions.plan import DecisionPlan, plan_decisions
from app.dependencies import (
    CalibrationsDependency,
    DebiasDependency,
    EngineDependency,
    FactsDependency,
    ServiceDependency,
)
from app.http.json_body import QueuedRoute
from app.http.json_response import OTHER_CALIBRATION, WORK_FAILURES, json_reply
from app.schemas.calibration import CalibrationName
from app.schemas.debias import Debias
from app.scoring.token_paths import PathQueries, PathScores
from model_runtime import InvalidQuery, ModelInfo, Tokenizer

router = APIRouter(tags=["decisions"], route_class=QueuedRoute, responses=WORK_FAILURES)

CalibrationHeader = Annotated[
    CalibrationName | None,
    Header(alias="X-Chainrule-Calibration", description="``calibration`` where the body has none."),
]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request with what its headers and the server's settings say.

    Attributes:
        body: the request.
        debias: orders of its options.
        calibration: of its answers; None for none.
    """

    body: SystemOneRequest
    debias: Debias
    calibration: NamedCalibration | None


@router.post(
    "/v1/systemone",
    response_model=SystemOneResponse,
    summary="Named questions about a state, answered by probabilities (System One)",
    responses=OTHER_CALIBRATION,
)
async def decide(
    request: SystemOneRequest,
    service: ServiceDependency,
    engine: EngineDependency,
    calibrations: CalibrationsDependency,
    facts: FactsDependency,
    debias: DebiasDependency,
    calibration: CalibrationHeader = None,
) -> Response:
    """Answer up to 400 questions about one state: how likely yes is, which option fits, which level
    of a scale.

    The same as /v1/decisions in another shape. The state and the instructions are shown as text,
    objects and arrays as JSON. Of a noul yes and no are scored, of a choice its options, and of a
    score the indices of its levels, each beside what it means.
    """
    orders, name = request.debias or debias, request.calibration or calibration
    found = find_calibration(calibrations, name, engine.info, orders)
    asked, serving_options = _Asked(request, orders, found), request.serving_options
    scores = await service.score_paths(serving_options, partial(_plan, asked))
    facts.update(scores.usage.model_dump())
    answer = await service.run_blocking(serving_options, lambda *_: _response(asked, scores))
    return await json_reply(answer, service.deadline(serving_options))


def _plan(asked: _Asked, tokenizer: Tokenizer, info: ModelInfo) -> PathQueries[DecisionPlan]:
    state, questions = content_text(asked.body.state), questions_of(asked.body)
    if asked.calibration is not None:
        asked.calibration.check_questions(questions)
    try:
        return plan_decisions(state, questions, asked.debias, tokenizer, info)
    except InvalidQuery as error:
        raise error.at("state") if error.param == "input" else error from None


def _response(asked: _Asked, found: PathScores[DecisionPlan]) -> SystemOneResponse:
    decisions = read_decisions(found.plan, unwrap_results(found.answers, found.plan.param))
    added = calibrated(asked.calibration, found.plan.questions, decisions)
    questions = asked.body.questions
    return SystemOneResponse(
        id=f"systemone-{found.id}",
        created=found.created,
        model=found.model,
        answers=dict(
            zip(questions, map(answer_to, questions.values(), decisions, added), strict=True)
        ),
        usage=SystemOneUsage(
            input_tokens=found.usage.prompt_tokens,
            scored_tokens=found.usage.scored_tokens,
            cached_tokens=found.usage.cached_tokens,
            computed_tokens=found.usage.computed_tokens,
        ),
        calibration=None if asked.calibration is None else asked.calibration.name,
        fingerprint=found.fingerprint,
        timings_ms=found.timings_ms,
    )
