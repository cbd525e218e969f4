"""POST /generative_scoring, and what POST /v1/score answers to SGLang's keys."""

from __future__ import annotations

from functools import partial
from typing import cast

from fastapi import APIRouter, Request, Response

from app.compat.answered import all_answered
from app.compat.scoring.labels_wire import (
    GenerativeScoringRequest,
    ItemScore,
    LabelRequest,
    LabelScoreRequest,
    LabelScores,
    PromptTokensDetails,
    ScoreList,
    ScoringUsage,
)
from app.compat.scoring.paths import item_field, label_probabilities, plan_labels
from app.dependencies import ServiceDependency
from app.json_route import JsonRoute
from app.limits import Limits
from app.routers.reply import WORK_FAILURES, json_reply
from app.schemas.response import Usage
from app.scored_paths import ScoredPaths
from app.service import ScoringService
from model_runtime import InvalidQuery

router = APIRouter(tags=["score"], route_class=JsonRoute, responses=WORK_FAILURES)


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
    return await json_reply(await service.use_tokenizer(lambda *_: _score_list(request, found)))


async def label_scores(
    request: LabelScoreRequest, service: ScoringService, http: Request
) -> LabelScores:
    """SGLang's answer: for each item the probability of each label."""
    found = await _asked(request, service, http)
    return await service.use_tokenizer(
        lambda *_: LabelScores(
            scores=_probabilities(found, request.apply_softmax),
            model=found.model,
            usage=scoring_usage(found.usage),
        )
    )


def scoring_usage(usage: Usage) -> ScoringUsage:
    """Our own count in the words of those APIs."""
    return ScoringUsage(
        prompt_tokens=usage.prompt_tokens,
        total_tokens=usage.prompt_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=max(0, usage.prompt_tokens - usage.computed_tokens)
        ),
    )


def check_count(http: Request, field: str, count: int) -> None:
    """Raise ``InvalidQuery`` for more items than the operator allows candidates."""
    limit = cast(Limits, http.app.state.limits).max_candidates
    if count > limit:
        raise InvalidQuery(f"{field}: {count} is more than this server allows, {limit}", field)


async def _asked(
    request: LabelRequest, service: ScoringService, http: Request
) -> ScoredPaths[None]:
    check_count(http, "items", len(request.items))
    return await service.score_paths(request, partial(plan_labels, request))


def _score_list(request: GenerativeScoringRequest, found: ScoredPaths[None]) -> ScoreList:
    scores = _probabilities(found, request.apply_softmax)
    name = request.request_id or found.id
    return ScoreList(
        id=f"generative-scoring-{name}",
        created=found.created,
        model=found.model,
        data=[ItemScore(index=index, score=first) for index, (first, *_) in enumerate(scores)],
        usage=scoring_usage(found.usage),
    )


def _probabilities(found: ScoredPaths[None], apply_softmax: bool) -> list[list[float]]:
    answers = all_answered(found.answers, item_field)
    return [label_probabilities(answer, apply_softmax=apply_softmax) for answer in answers]
