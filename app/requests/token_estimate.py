"""What a request costs at least, told before it is tokenized."""

from __future__ import annotations

from app.schemas.decode import DecodeRequest
from app.schemas.request import ContextRequest, Message, ServingOptions
from app.schemas.score import ScoreRequest
from model_runtime import ModelInfo, Tokenizer


def least_tokens(tokenizer: Tokenizer, info: ModelInfo, request: ServingOptions) -> int:
    """Tokens that admission will count for a request at least, by the length of its context; 1
    where that says nothing.

    A lower bound, so that nothing is refused by it that would fit: candidates may share their
    tokens or fail alone, and a chat template may leave messages out.
    """
    if not isinstance(request, ContextRequest):
        return 1
    context = request.context
    if isinstance(context, str):
        tokens = 0 if _may_begin_earlier(request) else tokenizer.least_tokens(context)
    elif context and isinstance(context[0], Message):
        tokens = 0
    else:
        tokens = len(context)
    # What is too long for the model is refused, and costs nothing.
    return max(1, min(tokens, info.max_model_len))


def _may_begin_earlier(request: ContextRequest) -> bool:
    """Whether a search for continuations may begin before the context's end, and not go on to it.
    What scores candidates is fed all of the context in any case."""
    if isinstance(request, DecodeRequest):
        return request.candidates is not None
    return isinstance(request, ScoreRequest) and request.boundary == "marginal"
