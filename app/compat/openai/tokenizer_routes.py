"""POST /tokenize, POST /detokenize and GET /tokenizer_info, in vLLM's shape."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response

from app.compat.openai.tokenizer_schemas import (
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    TokenizerInfo,
)
from app.dependencies import ServiceDependency
from app.errors.table import ModelNotServed
from app.http.json_body import JsonRoute
from app.http.json_response import LOOKUP_FAILURES, WORK_FAILURES, json_reply
from app.requests.chat import render_chat
from app.requests.limits import check_ids
from app.schemas.request import ServingOptions
from app.service import ScoringService
from model_runtime import ModelInfo, Tokenizer

router = APIRouter(tags=["tokenizer"], route_class=JsonRoute)


@router.post(
    "/tokenize", response_model=Tokenized, summary="Text to tokens", responses=WORK_FAILURES
)
async def tokenize(request: TokenizeRequest, service: ServiceDependency) -> Response:
    """Cut a text into tokens, or messages in the model's chat template.

    Unlike on the native routes a text that spells a control token is that token.
    """
    check_model(service, request.model)
    work = partial(_tokenized, request)
    return await json_reply(await service.run_blocking(ServingOptions(), work))


@router.post(
    "/detokenize", response_model=Detokenized, summary="Tokens to text", responses=WORK_FAILURES
)
async def detokenize(request: DetokenizeRequest, service: ServiceDependency) -> Response:
    """Put tokens back together, as the model's own tokenizer does."""
    check_model(service, request.model)
    work = partial(_detokenized, request)
    return await json_reply(await service.run_blocking(ServingOptions(), work))


@router.get(
    "/tokenizer_info",
    response_model=TokenizerInfo,
    summary="The tokenizer's control tokens and its chat template",
    responses=LOOKUP_FAILURES,
)
async def tokenizer_info(service: ServiceDependency) -> Response:
    """What a client needs to know to write prompts of its own."""
    return await json_reply(await service.run_blocking(ServingOptions(), _info))


def check_model(service: ScoringService, name: str | None) -> None:
    """Raise ``ModelNotServed``, naming the field, for a model that is not served."""
    if name is None:
        return
    try:
        service.model(name)
    except ModelNotServed as error:
        raise ModelNotServed(str(error), "model") from error


def _tokenized(request: TokenizeRequest, tokenizer: Tokenizer, info: ModelInfo) -> Tokenized:
    if request.prompt is not None:
        tokenizer.check_text(request.prompt, "prompt")
        ids = tokenizer.encode(request.prompt, parse_special=True)
    else:
        messages = request.messages or []
        ids = list(render_chat(tokenizer, messages, "messages", request.ending(messages)).ids)
    if request.adds_special_tokens:
        ids = list(tokenizer.with_prefix(ids))
    texts = None
    if request.return_token_strs:
        texts = [tokenizer.token_text(token_id) for token_id in ids]
    return Tokenized(
        count=len(ids),
        max_model_len=info.max_model_len,
        tokens=ids,
        token_strs=texts,
    )


def _detokenized(request: DetokenizeRequest, tokenizer: Tokenizer, info: ModelInfo) -> Detokenized:
    check_ids("tokens", request.tokens, info)
    hidden = tokenizer.control_ids if request.skip_special_tokens else frozenset()
    shown = [token_id for token_id in request.tokens if token_id not in hidden]
    return Detokenized(prompt=tokenizer.detokenize(shown))


def _info(tokenizer: Tokenizer, info: ModelInfo) -> TokenizerInfo:
    return TokenizerInfo(
        bos_token=_text(tokenizer, tokenizer.bos_token_id),
        eos_token=_text(tokenizer, tokenizer.eos_token_id),
        pad_token=_text(tokenizer, tokenizer.pad_token_id),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        add_bos_token=tokenizer.adds_bos,
        chat_template=tokenizer.chat_template,
        model_max_length=info.max_model_len,
    )


def _text(tokenizer: Tokenizer, token_id: int | None) -> str | None:
    return None if token_id is None else tokenizer.token_text(token_id)
