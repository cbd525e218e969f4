"""POST /v1/decisions: questions with a closed set of answers, about one input."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response

from app.calibration.decision import NamedCalibration, calibrated, find_calibration
from app.compat.batch_result import unwrap_results
from app.compat.decisions.questions import answer_to, calibrated_answer, input_text, questions_of
from app.compat.decisions.request import DecisionRequest
from app.compat.decisions.response import (
    CalibratedDecisionResponse,
    DecisionResponse,
    DecisionUsage,
    InputTokensDetails,
    OutputTokensDetails,
)
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
from app.schemas.debias import Debias
from app.schemas.response import Usage
from app.scoring.token_paths import PathQueries, PathScores
from model_runtime import ModelInfo, Tokenizer

router = APIRouter(tags=["decisions"], route_class=QueuedRoute, responses=WORK_FAILURES)


@router.post(
    "/v1/decisions",
    response_model=DecisionResponse | CalibratedDecisionResponse,
    summary="Questions about one input, answered by probabilities (OpenAI)",
    responses=OTHER_CALIBRATION,
)
async def decide(
    request: DecisionRequest,
    service: ServiceDependency,
    engine: EngineDependency,
    calibrations: CalibrationsDependency,
    facts: FactsDependency,
    debias: DebiasDependency,
) -> Response:
    """Answer up to 400 questions about one input: how likely a statement is, which option fits,
    which level of a scale.

    Nothing is generated. The options are listed in the prompt, and each is scored as the model's
    whole answer, to its end; probabilities are the softmax of those log-probabilities over the
    options of the question. They say how the model weighs these options against each other, and
    nothing of how likely it is to answer with none of them. The input is computed once, also where
    ``debias`` has the options shown in several orders.
    """
    orders = request.debias or debias
    calibration = find_calibration(calibrations, request.calibration, engine.info, orders)
    serving_options = request.serving_options
    found = await service.score_paths(serving_options, partial(_plan, request, orders, calibration))
    facts.update(found.usage.model_dump())
    answer = await service.run_blocking(
        serving_options, lambda *_: _response(request, calibration, found)
    )
    return await json_reply(answer, service.deadline(serving_options))


def _plan(
    request: DecisionRequest,
    orders: Debias,
    calibration: NamedCalibration | None,
    tokenizer: Tokenizer,
    info: ModelInfo,
) -> PathQueries[DecisionPlan]:
    questions = questions_of(request)
    if calibration is not None:
        calibration.check_questions(questions)
    return plan_decisions(input_text(request), questions, orders, tokenizer, info)


def _response(
    request: DecisionRequest,
    calibration: NamedCalibration | None,
    found: PathScores[DecisionPlan],
) -> DecisionResponse:
    decisions = read_decisions(found.plan, unwrap_results(found.answers, found.plan.param))
    added = calibrated(calibration, found.plan.questions, decisions)
    response = DecisionResponse(
        id=f"decision-{found.id}",
        created=found.created,
        model=found.model,
        answers=list(map(calibrated_answer, map(answer_to, request.questions, decisions), added)),
        usage=_usage(found.usage),
        fingerprint=found.fingerprint,
        timings_ms=found.timings_ms,
    )
    if request.calibration is None:
        return response
    return CalibratedDecisionResponse(**dict(response), calibration=request.calibration)


def _usage(usage: Usage) -> DecisionUsage:
    written = min(usage.computed_tokens, usage.prompt_tokens)
    return DecisionUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=usage.prompt_tokens - written, cache_write_tokens=written
        ),
        output_tokens_details=OutputTokensDetails(),
        total_tokens=usage.prompt_tokens,
        scored_tokens=usage.scored_tokens,
        computed_tokens=usage.computed_tokens,
    )
