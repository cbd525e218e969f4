"""POST /v1/next_token: the distribution of the token that follows a context."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from app.schemas.bounds import MAX_CHOSEN_IDS, MAX_LABEL_CHARS, MAX_LABELS
from app.schemas.request import ContextRequest, Temperature, TokenId, TopCount
from app.schemas.response import PART_CONFIG, BaseResponse, OmitEmpty, OmitImpossible, example

Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS)]


class NextTokenRequest(ContextRequest):
    """Which tokens of the distribution are wanted."""

    top_k: TopCount | None = None
    """So many most probable tokens. Null: 10, or with ``top_p`` as many as may be listed."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Only the smallest set of most probable tokens that reaches this mass, ``top_k`` at most."""
    token_ids: Annotated[list[TokenId], Field(max_length=MAX_CHOSEN_IDS)] = Field(
        default_factory=list
    )
    """Tokens to be reported whatever their rank."""
    labels: Annotated[list[Label], Field(max_length=MAX_LABELS)] = Field(default_factory=list)
    """Texts to be reported whatever their rank. Each must be exactly one token after the context,
    tokenized together with it; longer ones are for /v1/score."""
    temperature: Temperature = 1.0
    """Divides the logits: changes ``probability`` only. Log-probabilities, ranks and the entropy
    are the model's own."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"context": "The capital of France is", "top_k": 5},
        {"context": "Is the sky blue? Answer:", "top_k": 0, "labels": [" yes", " no"]},
    )


@dataclass(slots=True, kw_only=True)
class TokenProbability:
    """One token of the distribution."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    id: int
    text: str
    """The token's bytes as UTF-8; bytes that are not valid alone show as U+FFFD."""
    logprob: OmitImpossible = -math.inf
    """Absent where ``probability`` is 0."""
    probability: float
    """At the request's ``temperature``."""
    rank: int
    """1 + the number of tokens that are strictly more probable."""


class NextTokenResponse(BaseResponse):
    """The asked part of the distribution."""

    object: Literal["next_token"] = "next_token"
    tokens: list[TokenProbability]
    """The most probable tokens, best first."""
    chosen: OmitEmpty[list[TokenProbability]] = Field(default_factory=list)
    """One entry for each of ``token_ids``, then one for each of ``labels``, in their order; absent
    where neither was given."""
    entropy: float
    """Of the whole distribution, in nats."""
    remaining_probability: float
    """Mass of the tokens that are not in ``tokens``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                example(
                    id="next-0d9c1e5f7a3b4826a1f0e2d4c6b8a957",
                    object="next_token",
                    tokens=[
                        {
                            "id": 7042,
                            "text": " Paris",
                            "logprob": -0.5,
                            "probability": 0.6065306597126334,
                            "rank": 1,
                        }
                    ],
                    entropy=3.25,
                    remaining_probability=0.3934693402873666,
                    usage={
                        "prompt_tokens": 5,
                        "scored_tokens": 1,
                        "cached_tokens": 0,
                        "computed_tokens": 5,
                        "reused_scores": 0,
                    },
                )
            ]
        }
    )
