"""The search behind the messages of a chat, as the native API knows it."""

from __future__ import annotations

from typing import Final

from app.compat.openai.chat.plan import ChatPlan
from app.compat.openai.chat.request import ChatRequest
from app.compat.openai.search_request import search_request
from app.compat.openai.token_fields import no_token_left
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import DecodeResponse
from model_runtime import ChainruleError, InvalidQuery, NothingFollows

_FIELDS: Final = {
    "num_beams": "n",
    "num_return_sequences": "n",
    "stop": "stop",
    "token_logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
}
"""Native fields, and where they come from here."""


def search_behind(request: ChatRequest, plan: ChatPlan) -> DecodeRequest:
    """Greedy, or as many beams as answers are asked for."""
    search = search_request(
        request,
        beams=request.n,
        max_tokens=plan.max_tokens,
        top_logprobs=request.top_logprobs if request.logprobs else None,
    )
    # The ids are the tokenizer's own, so they are not validated again.
    return search.model_copy(update={"context": list(plan.ids)})


def check_count(request: ChatRequest, reply: DecodeResponse) -> None:
    """Raise ``InvalidQuery`` where there are fewer answers than are asked for."""
    if len(reply.sequences) < request.n:
        raise InvalidQuery(f"there are {len(reply.sequences)} answers and no more", "n")


def located(error: ChainruleError, request: ChatRequest) -> ChainruleError:
    """The error, naming the field at fault by its name here: mostly the messages."""
    if not isinstance(error, InvalidQuery):
        return error
    if isinstance(error, NothingFollows) and request.token_rules.masks:
        return no_token_left(error, request, request.response_format)
    if error.param == "json_schema" and request.response_format is not None:
        return error.at(request.response_format.param)
    if error.param == "max_tokens":
        return error.at(request.max_tokens_param)
    return error.at(_FIELDS.get(error.param or "", "messages"))
