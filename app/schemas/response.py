"""What every response shares. Log-probabilities are natural logs; floats round-trip exactly.

A field that was not asked for, or has no value here, is left out of the JSON, not null; a client
reads it as None. Errors and the shapes of other APIs (``app.compat``) keep the nulls that those
APIs have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from operator import eq, is_, not_
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

PART_CONFIG = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

T = TypeVar("T")


def _never_null(schema: dict[str, Any]) -> None:
    """Say in a field's JSON schema what the JSON holds: the value or nothing, but no null."""
    present = [one for one in schema.pop("anyOf") if one != {"type": "null"}]
    schema.update(present[0] if len(present) == 1 else {"anyOf": present})
    _without_default(schema)


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


OmitNone = Annotated[T | None, Field(exclude_if=partial(is_, None), json_schema_extra=_never_null)]
"""A field that is absent from the JSON where it is None, which must be its default."""

OmitImpossible = Annotated[
    float, Field(exclude_if=partial(eq, -math.inf), json_schema_extra=_without_default)
]
"""A log-probability that is absent from the JSON where it is minus infinity, which JSON does not
have and which must be its default."""

OmitEmpty = Annotated[T, Field(exclude_if=not_)]
"""A field that is absent from the JSON where it is empty or 0, which must be its default."""


class ResponseModel(BaseModel):
    """Base of every object in a response."""

    model_config = PART_CONFIG


class Usage(ResponseModel):
    """What the request cost, in tokens, and what it was spared."""

    prompt_tokens: int
    """Tokens of the context, beginning-of-sequence token included."""
    scored_tokens: int
    """Tokens whose log-probabilities the answer is made of."""
    cached_tokens: int
    """Tokens the model needed that were computed already, earlier or for a neighbour."""
    computed_tokens: int
    """Tokens the model was fed on behalf of this request."""
    reused_scores: int
    """Distinct token paths whose answers were taken from the score cache, or from an identical
    request that was being answered; nothing was computed for them."""


class Timings(ResponseModel):
    """Where the time went, in milliseconds."""

    queue: float
    """From submission to the request's first forward."""
    tokenize: float
    """Text to token ids."""
    model: float
    """From the first forward to the answer."""
    total: float
    """From the validated request to the finished answer."""


class BaseResponse(ResponseModel):
    """Base of every answer."""

    id: str
    object: str
    """The kind of answer."""
    created: int
    """Unix seconds."""
    model: str
    fingerprint: str
    """Digest of weights, tokenizer, dtype, code and torch version: the same one, the same bits."""
    numeric_error: OmitNone[float] = None
    """Estimated largest error of one token's log-probability against float64; absent: unknown."""
    usage: Usage
    timings_ms: Timings


# A response may list tens of thousands of these; a dataclass is made ten times as fast as a
# model, and documented and serialized alike.
@dataclass(slots=True, kw_only=True)
class TopLogprob:
    """One of the most probable tokens at a position."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    id: int
    text: str
    logprob: OmitImpossible = -math.inf
    """Absent where the probability is 0."""


@dataclass(slots=True, kw_only=True)
class TokenDetail:
    """One token of a scored or generated path."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    id: int
    text: str
    """The token's bytes as UTF-8; bytes that are not valid alone show as U+FFFD."""
    bytes: list[int]
    """The exact bytes the token stands for."""
    start: OmitNone[int] = None
    """Where the token begins: a byte offset in the UTF-8 of the context followed by the text. For
    token ids and messages the context is the bytes its tokens stand for. Absent where the tokenizer
    has normalized the text, so that no such offset exists."""
    end: OmitNone[int] = None
    """Where it ends, exclusive."""
    logprob: float
    rank: OmitNone[int] = None
    """1 + the number of tokens that are strictly more probable here; absent where not computed."""
    top_logprobs: OmitEmpty[list[TopLogprob]] = field(default_factory=list)
    """The most probable tokens here, best first; absent unless asked for."""


def example(**values: Any) -> dict[str, Any]:
    """A response's example, with the parts that every response has."""
    return {
        **values,
        "created": 1764000000,
        "model": "smollm2-135m-instruct",
        "fingerprint": "5b1f0c7a9d3e4f62",
        "numeric_error": 1e-5,
        "timings_ms": {"queue": 0.1, "tokenize": 0.2, "model": 30.0, "total": 31.0},
    }
