"""What a request costs at least, told before it is tokenized."""

from __future__ import annotations

from typing import Final

from app.schemas.decode import DecodeRequest
from app.schemas.request import ContextRequest, Message, ServingOptions
from app.schemas.score import ScoreRequest
from model_runtime import ModelInfo, Tokenizer

LONG_CHARACTERS: Final = 1_000_000
"""Characters that are tokenized in about a second."""


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


def takes_long(request: ServingOptions) -> bool:
    """Whether its texts may take seconds to tokenize: each candidate perhaps behind all of its
    context."""
    context = getattr(request, "context", None)
    candidates = getattr(request, "candidates", None) or ()
    repeated = len(context) if isinstance(context, str) else 0
    return repeated * (1 + len(candidates)) > LONG_CHARACTERS


def _may_begin_earlier(request: ContextRequest) -> bool:
    """Whether a search for continuations may begin before the context's end, and not go on to it.
    What scores candidates is fed all of the context in any case."""
    if isinstance(request, DecodeRequest):
        return request.candidates is not None
    return isinstance(request, ScoreRequest) and request.boundary == "marginal"
