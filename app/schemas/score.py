"""POST /v1/score: log P(candidate | context), candidate by candidate."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import (
    MAX_CALIBRATION_CONTEXTS,
    MAX_CANDIDATES,
    MAX_LENGTH_PENALTY,
    MAX_MARGINAL_EXPANSIONS,
    MAX_TOKEN_IDS,
)
from app.schemas.conditions import OFF, UNSET, Schema, absent_or, given, when
from app.schemas.receipt import Normalization
from app.schemas.request import Candidate, Context, LogprobsRequest, Temperature
from app.schemas.score_response import BoundaryPolicy

T = TypeVar("T")

Contexts = Annotated[
    list[Context], Field(min_length=1, max_length=MAX_CALIBRATION_CONTEXTS, fail_fast=True)
]

_NEEDED_BY = {"gnmt": "gnmt_alpha", "pmi": "pmi_context", "calibrated": "calibration_contexts"}
"""Normalizations with a setting of their own. The last two cannot do without it."""


class ScoreRequest(LogprobsRequest):
    """Candidates to be scored, all given the same context."""

    candidates: Annotated[
        list[Candidate], Field(min_length=1, max_length=MAX_CANDIDATES, fail_fast=True)
    ]
    """Texts or lists of token ids. One that cannot be scored fails alone, by index."""
    boundary: BoundaryPolicy | None = None
    """How context and candidate meet. ``joint``: as the tokenizer would split the whole text;
    all candidates are scored from the request's common start, which may lie before the context's
    end. ``separate``: each tokenized alone. ``marginal``: no one split; summed over every way in
    which tokens can spell a continuation that begins with the candidate. Null: joint if everything
    is text, else separate."""
    max_expansions: Annotated[int, Field(ge=1, le=MAX_MARGINAL_EXPANSIONS)] | None = None
    """Token paths that ``marginal`` asks about for each candidate; null: 256. Where they do not
    suffice, the result is a lower and an upper bound."""
    start_token: Annotated[int, Field(ge=1, le=MAX_TOKEN_IDS)] | None = None
    """Pins the position of the first scored token (what ``boundary.start_token`` reports), so that
    a list that is split over several requests is scored as one."""
    append_eos: bool = False
    """Score the end of the sequence as well, as a final token."""
    normalization: Normalization = "sum"
    """What ``score`` is: the log-probability's sum, its mean per scored token, or the sum per
    Unicode code point or UTF-8 byte of the candidate alone. ``gnmt``: the sum divided by
    ``((5 + token_count) / 6) ** gnmt_alpha``. ``pmi``: minus the log-probability of the same token
    ids under ``pmi_context``. ``calibrated``: minus its mean over ``calibration_contexts``."""
    gnmt_alpha: Annotated[float, Field(ge=0, le=MAX_LENGTH_PENALTY)] | None = None
    """The exponent of ``gnmt``. Null: 0.6."""
    pmi_context: Context | None = Field(default=None, validate_default=True)
    """What ``pmi`` compares with: the context without what matters, such as ``"Answer:"``."""
    calibration_contexts: Contexts | None = Field(default=None, validate_default=True)
    """What ``calibrated`` compares with: contexts that say nothing, such as ``"N/A"``."""
    temperature: Temperature = 1.0
    """Divides the scores before the softmax over candidates: changes ``probability`` only."""
    top_n: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] | None = None
    """Rank only so many best candidates, and whoever is tied with the last of them. Candidates that
    are provably not among them are not scored to the end: they have a ``bound`` instead."""
    compact: bool = False
    """Answer with the columns of ``compact``, and leave ``results`` empty."""
    receipt: bool = False
    """Add a receipt to the answer: token ids and log-probabilities, from which ``chainrule verify``
    tells anywhere whether the scores hold."""
    all_or_nothing: bool = False
    """Refuse the whole request when one candidate cannot be scored. One that ``top_n`` leaves
    unfinished counts as scored."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        *(
            when(given(field), given("normalization", {"const": kind}))
            for kind, field in _NEEDED_BY.items()
        ),
        *(
            when(given("normalization", {"const": kind}), given(field))
            for kind, field in _NEEDED_BY.items()
            if kind != "gnmt"
        ),
        when(given("max_expansions"), given("boundary", {"const": "marginal"})),
        when(
            given("boundary", {"const": "marginal"}),
            absent_or(
                normalization={"enum": ["sum", None]},
                start_token=UNSET,
                top_n=UNSET,
                compact=OFF,
                token_logprobs=OFF,
                top_logprobs={"enum": [0, None]},
                receipt=OFF,
            ),
        ),
        when(
            given("compact", {"const": True}),
            absent_or(token_logprobs=OFF, top_logprobs={"enum": [0, None]}),
        ),
    )

    @field_validator(*_NEEDED_BY.values())
    @classmethod
    def _belongs_to_its_normalization(cls, value: T, info: ValidationInfo) -> T:
        kind = next(kind for kind, param in _NEEDED_BY.items() if param == info.field_name)
        if value is not None and info.data.get("normalization", kind) != kind:
            raise PydanticCustomError("other_normalization", "Only {kind} has this", {"kind": kind})
        return value

    @field_validator("max_expansions")
    @classmethod
    def _belongs_to_marginal(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("boundary") != "marginal":
            raise PydanticCustomError("other_boundary", "Only boundary marginal has this")
        return value

    @field_validator("pmi_context", "calibration_contexts")
    @classmethod
    def _is_there_where_it_is_needed(cls, value: T, info: ValidationInfo) -> T:
        if value is None and _NEEDED_BY.get(info.data.get("normalization", "")) == info.field_name:
            raise PydanticCustomError("missing", "Field required")
        return value

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "context": "The capital of France is",
            "candidates": [" Paris", " London", " banana"],
        },
        {
            "context": [{"role": "user", "content": "Is the sky blue? Answer yes or no."}],
            "candidates": ["Yes", "No"],
            "append_eos": True,
            "normalization": "mean",
            "token_logprobs": True,
            "top_logprobs": 2,
        },
        {
            "context": "The capital of France is",
            "candidates": [" Paris", " London"],
            "receipt": True,
        },
    )
