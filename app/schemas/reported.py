"""What another system has reported of an audit's candidates."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import MAX_AUDIT_CANDIDATES, MAX_AUDIT_TOKENS, MAX_REPORTED_DECIMALS
from app.schemas.conditions import UNSET, Schema, absent_or, any_of, given, when
from app.schemas.request import Request

T = TypeVar("T")

Claim = Literal["sum", "mean", "per_byte", "per_char"]
ReportedKind = Literal["totals", "probabilities", "token_logprobs", "order"]

KINDS: Final[tuple[ReportedKind, ...]] = ("totals", "probabilities", "token_logprobs", "order")
"""What may be reported; one of them is."""

LARGEST: Final = 1e9
"""No score of 512 tokens is farther from 0, in any unit."""

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Probability = Annotated[float, Field(ge=0, le=1)]
Place = Annotated[int, Field(ge=0, le=MAX_AUDIT_CANDIDATES - 1)]
TokenNumbers = Annotated[list[Number | None], Field(max_length=MAX_AUDIT_TOKENS)]


class Reported(Request):
    """Numbers of another system for the request's candidates: one of ``totals``,
    ``probabilities``, ``token_logprobs`` and ``order``."""

    totals: (
        Annotated[list[Number | None], Field(min_length=1, max_length=MAX_AUDIT_CANDIDATES)] | None
    ) = None
    """A score for each candidate, in their order; null where none was reported."""
    probabilities: (
        Annotated[list[Probability | None], Field(min_length=1, max_length=MAX_AUDIT_CANDIDATES)]
        | None
    ) = None
    """The same as probabilities: what should be exp of the score."""
    token_logprobs: (
        Annotated[list[TokenNumbers | None], Field(min_length=1, max_length=MAX_AUDIT_CANDIDATES)]
        | None
    ) = None
    """The log-probability of each token of each candidate; null for a token, or a candidate, of
    which nothing was reported."""
    order: (
        Annotated[
            list[Place],
            Field(
                min_length=2,
                max_length=MAX_AUDIT_CANDIDATES,
                json_schema_extra={"uniqueItems": True},
            ),
        ]
        | None
    ) = None
    """Indices of candidates, best first. An order tells far less than numbers do."""
    normalization: Claim = "sum"
    """What the other system says that its scores are: the log-probability's sum, its mean per
    scored token, or the sum per UTF-8 byte or Unicode code point of the candidate."""
    decimals: Annotated[int, Field(ge=0, le=MAX_REPORTED_DECIMALS)] | None = None
    """Decimals that the numbers were rounded to. Null: as many as they show."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        any_of(*map(given, KINDS)),
        *(
            when(given(kind), absent_or(**{other: UNSET for other in KINDS if other != kind}))
            for kind in KINDS
        ),
        when(given("token_logprobs"), absent_or(normalization={"enum": ["sum", None]})),
        when(given("order"), absent_or(decimals=UNSET)),
    )

    @property
    def kind(self) -> ReportedKind:
        """Which of the fields is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @field_validator(*KINDS[1:])
    @classmethod
    def _is_alone(cls, value: T, info: ValidationInfo) -> T:
        if value is not None:
            for other in KINDS:
                if other != info.field_name and info.data.get(other) is not None:
                    raise PydanticCustomError(
                        "second_report", "Input goes without {other}", {"other": other}
                    )
        return value

    @field_validator("order")
    @classmethod
    def _names_each_once(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and len(set(value)) != len(value):
            raise PydanticCustomError("named_twice", "Input should name each candidate once")
        return value

    @field_validator("normalization")
    @classmethod
    def _is_of_scores(cls, value: Claim, info: ValidationInfo) -> Claim:
        if value != "sum" and info.data.get("token_logprobs") is not None:
            raise PydanticCustomError("no_total", "Input should be 'sum' beside token_logprobs")
        return value

    @field_validator("decimals")
    @classmethod
    def _is_of_numbers(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("order") is not None:
            raise PydanticCustomError("no_numbers", "Input goes without order")
        return value

    @model_validator(mode="after")
    def _is_there(self) -> Reported:
        if all(getattr(self, kind) is None for kind in KINDS):
            raise PydanticCustomError(
                "nothing_reported",
                "Input should have one of totals, probabilities, token_logprobs and order",
            )
        return self
