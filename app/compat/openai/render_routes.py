"""POST /v1/completions/render and /v1/chat/completions/render, in vLLM's shape.

Routers that send prompts with a common beginning to one server ask what a prompt is in tokens.
The answer is made by what makes the prompts of the routes themselves, and computes nothing.
"""

from __future__ import annotations

from functools import partial
from typing import cast
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from app.compat.openai.chat.plan import plan_chat
from app.compat.openai.chat.request import ChatRequest
from app.compat.openai.plan import lists_prompt, plan_prompts
from app.compat.openai.render_schemas import RenderedPrompt, RenderedPrompts, SamplingParams
from app.compat.openai.request import CompletionRequest
from app.compat.openai.tokenizer_routes import check_model
from app.dependencies import ServiceDependency
from app.http.json_body import JsonRoute
from app.http.json_response import WORK_FAILURES, dump_json_chunked
from app.requests.limits import Limits
from app.requests.worker_threads import check_wanted
from model_runtime import ModelInfo, Tokenizer

router = APIRouter(tags=["tokenizer"], route_class=JsonRoute, responses=WORK_FAILURES)


@router.post(
    "/v1/completions/render",
    response_model=RenderedPrompts,
    summary="The tokens of completions' prompts",
)
async def render_completion(
    request: CompletionRequest, http_request: Request, service: ServiceDependency
) -> Response:
    """What the model would be fed by /v1/completions, for each prompt; nothing is computed."""
    check_model(service, request.model)
    limits = cast(Limits, http_request.app.state.limits)
    content = await service.run_blocking(request, partial(_completions, request, limits))
    return Response(content, media_type="application/json")


@router.post(
    "/v1/chat/completions/render",
    response_model=RenderedPrompt,
    summary="The tokens of a chat's prompt",
)
async def render_chat_completion(
    request: ChatRequest, http_request: Request, service: ServiceDependency
) -> Response:
    """What the model would be fed by /v1/chat/completions; nothing is computed."""
    check_model(service, request.model)
    limits = cast(Limits, http_request.app.state.limits)
    content = await service.run_blocking(request, partial(_chat, request, limits))
    return Response(content, media_type="application/json")


def _completions(
    request: CompletionRequest, limits: Limits, tokenizer: Tokenizer, info: ModelInfo
) -> bytes:
    plan = plan_prompts(request, limits, tokenizer, info).plan
    settings = _settings(request, request.max_tokens, request.logprobs, _prompt_logprobs(request))
    rendered = []
    for path in plan.paths:
        check_wanted()
        prompt = _rendered(request, f"cmpl-{uuid4().hex}", path.ids, settings, info)
        rendered.append(dump_json_chunked(prompt))
    return b"[" + b",".join(rendered) + b"]"


def _prompt_logprobs(request: CompletionRequest) -> int | None:
    """Most probable tokens at each place of the prompt that are asked for in either way."""
    if not lists_prompt(request):
        return request.prompt_logprobs
    return max(request.logprobs or 0, request.prompt_logprobs or 0)


def _chat(request: ChatRequest, limits: Limits, tokenizer: Tokenizer, info: ModelInfo) -> bytes:
    plan = plan_chat(request, limits, tokenizer, info).plan
    listed = request.top_logprobs if request.logprobs else None
    settings = _settings(request, plan.max_tokens, listed, request.prompt_logprobs)
    name = f"chatcmpl-{uuid4().hex}"
    return dump_json_chunked(_rendered(request, name, plan.ids, settings, info))


def _settings(
    request: CompletionRequest | ChatRequest,
    max_tokens: int,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    schema = request.constraint
    return SamplingParams(
        n=request.n,
        max_tokens=max_tokens,
        stop=request.stop,
        ignore_eos=request.ignore_eos,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        seed=request.seed,
        logit_bias=request.logit_bias or None,
        allowed_token_ids=request.allowed_token_ids,
        skip_special_tokens=request.skip_special_tokens,
        structured_outputs=None if schema is None else {"json": schema},
    )


def _rendered(
    request: CompletionRequest | ChatRequest,
    name: str,
    ids: tuple[int, ...],
    settings: SamplingParams,
    info: ModelInfo,
) -> RenderedPrompt:
    return RenderedPrompt(
        request_id=name,
        token_ids=list(ids),
        sampling_params=settings,
        model=info.name,
        stream=request.stream,
        stream_options=request.stream_options,
        cache_salt=request.cache_salt or None,
        priority=0 if request.priority == "interactive" else 1,
    )
