"""The search that a request of OpenAI's asks for, as the native API knows it."""

from __future__ import annotations

from app.compat.openai.chat.request import ChatRequest
from app.compat.openai.request import CompletionRequest
from app.schemas.decode import DecodeRequest


def search_request(
    request: CompletionRequest | ChatRequest,
    *,
    beams: int,
    max_tokens: int,
    top_logprobs: int | None,
) -> DecodeRequest:
    """Greedy, or beams ranked by the mean log-probability; kept to the format that is asked for.

    The context is empty: the caller puts the ids of its prompt there, which have been checked.

    Args:
        beams: to search with; one is greedy search.
        max_tokens: to generate at most.
        top_logprobs: most probable tokens to list at each place; None where no token is listed.
    """
    several = beams > 1
    return DecodeRequest(
        model=request.model,
        priority=request.priority,
        cache_salt=request.cache_salt,
        context=[],
        add_bos=False,
        strategy="beam" if several else "greedy",
        max_tokens=max_tokens,
        num_beams=beams if several else None,
        num_return_sequences=request.n if several else None,
        json_schema=request.constraint,
        stop=request.stop,
        ignore_eos=request.ignore_eos,
        token_logprobs=top_logprobs is not None,
        top_logprobs=top_logprobs or 0,
        stream=request.stream,
    )
