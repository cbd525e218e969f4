"""POST /v1/decode, the answers: whole, and token by token."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict

from app.schemas.decode import Strategy
from app.schemas.response import (
    PART_CONFIG,
    BaseResponse,
    OmitEmpty,
    OmitNone,
    ResponseModel,
    TokenDetail,
    TopLogprob,
    example,
)
from app.schemas.score_response import BoundaryReport
from app.schemas.search_tree import SearchTree


class DecodedSequence(ResponseModel):
    """One continuation."""

    index: int
    """Place in the order of ``score``, best first."""
    text: str
    """What was generated, without its end token, cut before a stop text. A candidate that was given
    as text is that text."""
    token_ids: list[int]
    """Everything that was generated, the end token and a stop text's tokens included."""
    logprob: float
    """Sum over ``token_ids``: what /v1/score says of these ids under ``separate``."""
    score: float
    """What the search ranks by: ``logprob / len(token_ids) ** length_penalty`` for ``beam`` and
    ``exact``, the ``logprob`` for ``greedy``."""
    finish_reason: Literal["stop", "length"]
    """``stop``: an end token, a stop token, a stop text, or all of a candidate or of what the
    grammar allows. ``length``: ``max_tokens``."""
    candidate: OmitNone[int] = None
    """Which of the request's ``candidates`` it is; of equal ones the first. Absent without
    candidates, and where a stop cut one short."""
    tokens: OmitNone[list[TokenDetail]] = None
    """One entry for each of ``token_ids``; absent unless asked for."""


class CertificateReport(ResponseModel):
    """What an exact search has proven. It holds up to the numeric error of the model's numbers."""

    optimal: bool
    """The sequences are the best that there are, in this order, and none is missing; with
    ``threshold``, all that are probable enough. False where ``max_expansions`` or the time ran out
    first."""
    gap: OmitNone[float] = None
    """By how much the score of a completion that is not among the sequences may exceed the last
    one's; 0 where none can. Absent where there are no sequences."""
    upper_bound: OmitNone[float] = None
    """No completion has a higher score. Absent where there is none at all."""
    expanded: int
    """Prefixes whose continuations the model was asked about."""


class ComparedStrategy(ResponseModel):
    """What one strategy found, and what it missed."""

    strategy: Strategy
    """One of the request's ``compare``."""
    sequence: OmitNone[DecodedSequence] = None
    """Its best sequence; absent where it found none within its budget or the time."""
    total: OmitNone[float] = None
    """The sequence's log-probability, in nats."""
    search_error: OmitNone[float] = None
    """So many nats the proven optimum's log-probability lies above ``total``: 0 where they are one,
    or closer than the numeric error can tell. A beam search that ranks by another score than the
    log-probability is measured by the log-probability all the same. Absent where ``reason`` says
    why."""
    reason: OmitNone[str] = None
    """Why there is no ``search_error``."""
    search_tree: OmitNone[SearchTree] = None
    """What it looked at; absent unless asked for."""


_PARIS: Final[dict[str, Any]] = {
    "index": 0,
    "text": " Paris.",
    "token_ids": [7042, 30, 2],
    "logprob": -1.75,
    "score": -1.75,
    "finish_reason": "stop",
}

ANSWER_EXAMPLE: Final = example(
    id="decode-9b7a5c3e1f0d4826b4a2c6e8f0d1b3a5",
    object="decode",
    sequences=[_PARIS],
    certificate={"optimal": True, "gap": 0.0, "upper_bound": -1.75, "expanded": 57},
    usage={
        "prompt_tokens": 5,
        "scored_tokens": 3,
        "cached_tokens": 0,
        "computed_tokens": 61,
        "reused_scores": 0,
    },
)


class DecodeResponse(BaseResponse):
    """Continuations, best first."""

    object: Literal["decode"] = "decode"
    sequences: list[DecodedSequence]
    """Best first; empty where nothing was found, and with ``compare``."""
    certificate: OmitNone[CertificateReport] = None
    """What was proven; absent where exact search was not asked for."""
    boundary: OmitNone[BoundaryReport] = None
    """Where context and candidates met; absent without candidates. From ``start_token`` on all was
    searched, so ``token_ids`` may begin with the context's last tokens."""
    compared: OmitNone[list[ComparedStrategy]] = None
    """One entry for each strategy of ``compare``, in its order; absent without it."""
    search_tree: OmitNone[SearchTree] = None
    """What the search looked at; absent unless asked for, and with ``compare``, where each strategy
    has its own."""

    model_config = ConfigDict(json_schema_extra={"examples": [ANSWER_EXAMPLE]})


@dataclass(slots=True)
class DecodedToken:
    """The data of a ``token`` event: one generated token."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    index: int
    """Place in the sequence, from 0."""
    id: int
    text: str
    """What the answer's text grows by. Empty for an end token, and while bytes wait for the rest of
    a character, or could still turn out to be a stop text; they come with a later token."""
    logprob: float
    rank: int
    """1 + the number of tokens that are strictly more probable here."""
    top_logprobs: OmitEmpty[list[TopLogprob]] = field(default_factory=list)
    """The most probable tokens here, best first; absent unless asked for."""


_TOKEN_EXAMPLE: Final = {
    "index": 0,
    "id": 7042,
    "text": " Paris",
    "logprob": -1.125,
    "rank": 1,
}

EVENTS_EXAMPLE: Final = "".join(
    f"event: {name}\ndata: {json.dumps(data)}\n\n"
    for name, data in (("token", _TOKEN_EXAMPLE), ("result", ANSWER_EXAMPLE))
)
"""The beginning and the end of a stream."""
