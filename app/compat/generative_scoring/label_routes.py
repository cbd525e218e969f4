"""POST /generative_scoring, and what POST /v1/score answers to SGLang's keys."""

from __future__ import annotations

from functools import partial
from typing import cast

from fastapi import APIRouter, Request, Response

from app.compat.batch_result import unwrap_results
from app.compat.generative_scoring.label_plan import (
    first_probability,
    item_field,
    label_probabilities,
    plan_labels,
)
from app.compat.generative_scoring.label_schemas import (
    GenerativeScoringRequest,
    ItemScore,
    LabelRequest,
    LabelScoreRequest,
    LabelScores,
    PromptTokensDetails,
    ScoreList,
    ScoringUsage,
)
from app.dependencies import ServiceDependency
from app.http.json_body import QueuedRoute
from app.http.json_response import WORK_FAILURES, json_reply
from app.requests.limits import Limits
from app.schemas.response import Usage
from app.scoring.token_paths import PathScores
from app.service import ScoringService
from app.telemetry.request_facts import facts_of
from model_runtime import InvalidQuery

router = APIRouter(tags=["score"], route_class=QueuedRoute, responses=WORK_FAILURES)


@router.post(
    "/generative_scoring",
    response_model=ScoreList,
    summary="The probability of labels behind a query and items (vLLM)",
)
async def generative_scoring(
    request: GenerativeScoringRequest, service: ServiceDependency, http: Request
) -> Response:
    """Score items by the probability of the first label behind query and item.

    Between 0 and 1, better is higher. With ``apply_softmax`` it is the first label's share of the
    probability of all labels, comparable between requests with the same query and labels.
    """
    found = await _asked(request, service, http)
    answer = await service.run_blocking(request, lambda *_: _score_list(request, found))
    return await json_reply(answer, service.deadline(request))


async def label_scores(
    request: LabelScoreRequest, service: ScoringService, http: Request
) -> LabelScores:
    """SGLang's answer: for each item the probability of each label."""
    found = await _asked(request, service, http)
    return await service.run_blocking(
        request,
        lambda *_: LabelScores(
            scores=[
                label_probabilities(answer, apply_softmax=request.apply_softmax)
                for answer in unwrap_results(found.answers, item_field)
            ],
            model=found.model,
            usage=scoring_usage(found.usage),
        ),
    )


def scoring_usage(usage: Usage, needed: int | None = None) -> ScoringUsage:
    """Our own count in the words of those APIs; ``needed`` tokens were to be fed, or all."""
    fed = usage.prompt_tokens if needed is None else needed
    return ScoringUsage(
        prompt_tokens=usage.prompt_tokens,
        total_tokens=usage.prompt_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=max(0, fed - usage.computed_tokens)
        ),
    )


def limits_of(http: Request) -> Limits:
    """The operator's bounds."""
    return cast(Limits, http.app.state.limits)


def check_count(http: Request, field: str, count: int) -> None:
    """Raise ``InvalidQuery`` for more items than the operator allows candidates."""
    limit = limits_of(http).max_candidates
    if count > limit:
        raise InvalidQuery(f"{count} is more than this server allows, {limit}", field)


async def _asked(request: LabelRequest, service: ScoringService, http: Request) -> PathScores[None]:
    check_count(http, "items", len(request.items))
    found = await service.score_paths(request, partial(plan_labels, request))
    facts_of(http.scope).update(found.usage.model_dump())
    return found


def _score_list(request: GenerativeScoringRequest, found: PathScores[None]) -> ScoreList:
    answers = unwrap_results(found.answers, item_field)
    name = request.request_id or found.id
    return ScoreList(
        id=f"generative-scoring-{name}",
        created=found.created,
        model=found.model,
        data=[
            ItemScore(
                index=index, score=first_probability(answer, apply_softmax=request.apply_softmax)
            )
            for index, answer in enumerate(answers)
        ],
        usage=scoring_usage(found.usage),
    )
