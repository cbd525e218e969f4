"""POST /v1/audit, the request: candidates whose scores are to be explained."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import (
    MAX_AUDIT_BEAMS,
    MAX_AUDIT_CANDIDATES,
    MAX_AUDIT_EXPANSIONS,
    MAX_AUDIT_NEW_TOKENS,
    MAX_AUDIT_PAIRS,
    MAX_TOKEN_IDS,
)
from app.schemas.reported import Reported
from app.schemas.request import Candidate, ContextRequest

DEFAULT_AUDIT_NEW_TOKENS = 32
DEFAULT_AUDIT_BEAMS = 4
DEFAULT_AUDIT_EXPANSIONS = 256

Place = Annotated[int, Field(ge=0, le=MAX_AUDIT_CANDIDATES - 1)]
Pair = Annotated[
    list[Place], Field(min_length=2, max_length=2, json_schema_extra={"uniqueItems": True})
]


class AuditRequest(ContextRequest):
    """Candidates whose scores are to be explained."""

    candidates: Annotated[
        list[Candidate], Field(min_length=1, max_length=MAX_AUDIT_CANDIDATES, fail_fast=True)
    ]
    """Texts or lists of token ids, of 512 tokens in all at most. One that cannot be scored fails
    alone, by index."""
    boundary: Literal["joint", "separate"] | None = None
    """How context and candidate meet, as in /v1/score."""
    start_token: Annotated[int, Field(ge=1, le=MAX_TOKEN_IDS)] | None = None
    """Pins the position of the first scored token, as in /v1/score."""
    append_eos: bool = False
    """Score the end of the sequence as well, as a final token."""
    pairs: Annotated[list[Pair], Field(max_length=MAX_AUDIT_PAIRS)] | None = None
    """Candidates to be compared token by token, two indices each. Null: the two best."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_AUDIT_NEW_TOKENS)] | None = None
    """Tokens of the completions that are searched beside the candidates. Null: as many as the
    longest candidate has, 32 at most."""
    num_beams: Annotated[int, Field(ge=1, le=MAX_AUDIT_BEAMS)] | None = None
    """Beams of the beam search. Null: 4."""
    max_expansions: Annotated[int, Field(ge=1, le=MAX_AUDIT_EXPANSIONS)] | None = None
    """Prefixes that the exact search asks about at most. Null: 256."""
    reported: Reported | None = None
    """What another system gave for these candidates: the answer's ``diagnosis`` then says which
    known mistake makes the same numbers."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "context": "The capital of France is",
            "candidates": [" Paris", " the city of light", " banana"],
        },
        {
            "context": [{"role": "user", "content": "Is the sky blue? Answer yes or no."}],
            "candidates": ["Yes", "No", "Maybe"],
            "append_eos": True,
            "pairs": [[0, 1], [0, 2]],
        },
        {
            "context": "The capital of France is",
            "candidates": [" Paris", " the city of light", " banana"],
            "reported": {"totals": [-0.1132, -3.6221, -7.4747]},
        },
    )

    @property
    def beams(self) -> int:
        """Beams of the beam search."""
        return self.num_beams or DEFAULT_AUDIT_BEAMS

    @property
    def expansions(self) -> int:
        """The exact search's budget."""
        return self.max_expansions or DEFAULT_AUDIT_EXPANSIONS

    @field_validator("pairs")
    @classmethod
    def _are_of_candidates(
        cls, value: list[list[int]] | None, info: ValidationInfo
    ) -> list[list[int]] | None:
        count = len(info.data.get("candidates", ()))
        for first, second in value or ():
            if first == second:
                raise PydanticCustomError("same_candidate", "Input should name two candidates each")
            if count and max(first, second) >= count:
                raise PydanticCustomError(
                    "no_such_candidate", "Input should name indices below {count}", {"count": count}
                )
        return value
