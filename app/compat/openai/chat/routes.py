"""POST /v1/chat/completions, in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated, Final, cast

from fastapi import APIRouter, Depends, Request, Response

from app.compat.openai.chat.request import ChatRequest
from app.compat.openai.chat.response import ChatCompletion, ChatCompletionChunk
from app.compat.openai.chat.service import ChatService, chunk_size
from app.compat.openai.sse import CompletionStream, inline_schema, stream_document
from app.dependencies import FactsDependency, ServiceDependency
from app.http.json_body import JsonRoute
from app.http.json_response import WORK_FAILURES, json_reply
from app.requests.limits import Limits
from app.schemas.error import ErrorResponse

router = APIRouter(tags=["openai"], route_class=JsonRoute, responses=WORK_FAILURES)

_EVENTS: Final = stream_document(
    inline_schema(ChatCompletionChunk),
    "one piece that says who speaks, one a token, one with the ``finish_reason``, one with the "
    "``usage`` where it is wanted",
    '{"id": "chatcmpl-0", "object": "chat.completion.chunk", ...}',
)


async def get_chat(
    request: Request, service: ServiceDependency, facts: FactsDependency
) -> ChatService:
    """Chats over what the request's own service answers; they wait where the queue is full, as
    completions do."""
    return ChatService(service.for_parts(), cast(Limits, request.app.state.limits), facts)


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    summary="Chat completions in OpenAI's shape",
    responses={
        200: _EVENTS,
        501: {"model": ErrorResponse, "description": "The server has no grammar compiler"},
    },
)
async def create_chat_completion(
    request: ChatRequest, chat: Annotated[ChatService, Depends(get_chat)]
) -> Response:
    """Answer messages by the most probable reply, and list what it is made of.

    Nothing is sampled: it is greedy search, or with ``n`` beam search for the highest mean
    log-probability. Messages that end with the assistant's words go on from there; with
    ``max_tokens`` 0 and ``logprobs`` those words are scored, to the same bits as by /v1/score.
    """
    if request.stream:
        return await CompletionStream.of(chat.stream(request), chunk_size)
    answer = await chat.complete(request)
    return await json_reply(answer, chat.deadline(request))
