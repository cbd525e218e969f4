"""POST /v1/completions as OpenAI's clients read it: the answer, and the pieces of a stream."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from app.compat.openai.prompt_logprobs import PromptLogprobs
from app.schemas.response import ResponseModel


class CompletionLogprobs(ResponseModel):
    """The listed tokens of one choice; every column has an entry for each."""

    text_offset: list[int]
    """Characters before the token, of the prompt's text and the completion's, whether the prompt is
    echoed or not. Behind the text's end for a token that a stop has taken out of the text."""
    token_logprobs: list[float | None]
    """Natural logs; null for the first token of an echoed prompt, which nothing comes before."""
    tokens: list[str]
    """The tokens' texts, each of which stands for one token only: ``bytes:\\xe2\\x80`` for bytes
    that are no text, ``token_id:7`` where another token has the same text."""
    top_logprobs: list[dict[str, float] | None]
    """The most probable tokens at that place, and the token itself."""


class CompletionChoice(ResponseModel):
    """One completion of one prompt."""

    text: str
    """With ``echo`` the prompt's text first. Without an end token, and without other control tokens
    that were generated unless ``skip_special_tokens`` is false; cut before a stop text."""
    index: int
    """``n`` times the prompt's place among the prompts, plus the choice's among its own."""
    logprobs: CompletionLogprobs | None
    """Null unless asked for. Every token that was generated is listed, also one that ends the text
    and those of a stop text."""
    finish_reason: Literal["stop", "length"] | None
    """``stop``: an end token or a stop text. ``length``: ``max_tokens``. Null in a piece of a
    stream that goes on."""


class ScoredChoice(CompletionChoice):
    """One where ``prompt_logprobs`` is asked for."""

    prompt_logprobs: PromptLogprobs
    """For each token of the prompt, an added BOS included, the token itself and the most probable
    ones at its place, by token id. Null for the first, which nothing comes before."""


class PromptTokensDetails(ResponseModel):
    """What was known of the prompts."""

    cached_tokens: int
    """Prompt tokens that did not have to be computed."""


class CompletionUsage(ResponseModel):
    """What the request cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    """Of all choices, end tokens and the tokens of stop texts included."""
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class Completion(ResponseModel):
    """A whole answer, or a piece of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    """Unix seconds."""
    model: str
    system_fingerprint: str
    """Digest of weights, tokenizer, dtype, code and torch version: the same one, the same bits."""
    choices: list[ScoredChoice | CompletionChoice]
    """In the order of ``index``; in a stream, of one prompt or none."""
    usage: CompletionUsage | None
    """Null in all pieces of a stream but the last, which is sent where ``include_usage`` is set."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "cmpl-3f6d2b8c1a9e4d57b0c2f4a68e1d7b93",
                    "object": "text_completion",
                    "created": 1764000000,
                    "model": "smollm2-135m-instruct",
                    "system_fingerprint": "5b1f0c7a9d3e4f62",
                    "choices": [
                        {"text": " Paris.", "index": 0, "logprobs": None, "finish_reason": "stop"}
                    ],
                    "usage": {
                        "prompt_tokens": 5,
                        "completion_tokens": 3,
                        "total_tokens": 8,
                        "prompt_tokens_details": {"cached_tokens": 0},
                    },
                }
            ]
        }
    )
