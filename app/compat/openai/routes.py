"""POST /v1/completions, in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request, Response

from app.compat.openai.request import CompletionRequest
from app.compat.openai.response import Completion
from app.compat.openai.service import CompletionService
from app.compat.openai.sse import EVENTS, CompletionStream, completion_size
from app.dependencies import FactsDependency, ServiceDependency
from app.http.json_body import JsonRoute
from app.http.json_response import WORK_FAILURES, json_reply
from app.requests.limits import Limits

router = APIRouter(tags=["openai"], route_class=JsonRoute, responses=WORK_FAILURES)


async def get_completions(
    request: Request, service: ServiceDependency, facts: FactsDependency
) -> CompletionService:
    """Completions of what the request's own service answers.

    Evaluations send thousands of prompts at once, try each a few times and then give up for good,
    whatever ``Retry-After`` says: so they wait where the queue is full.
    """
    limits = cast(Limits, request.app.state.limits)
    return CompletionService(service.for_parts(), limits, facts)


@router.post(
    "/v1/completions",
    response_model=Completion,
    summary="Completions in OpenAI's shape",
    responses={200: EVENTS},
)
async def create_completion(
    request: CompletionRequest,
    completions: Annotated[CompletionService, Depends(get_completions)],
) -> Response:
    """Continue prompts by their most probable completions, and list what they are made of.

    Nothing is sampled: without ``n`` and ``best_of`` it is greedy search, with them beam search
    for the highest mean log-probability. With ``echo`` and ``logprobs`` every prompt token is
    scored, to the same bits as by /v1/score. A batch is answered whole or not at all.
    """
    if request.stream:
        return await CompletionStream.of(completions.stream(request), completion_size)
    answer = await completions.complete(request)
    return await json_reply(answer, completions.deadline(request))
