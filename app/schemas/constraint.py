"""What a completion may be: one of a closed set of candidates, or what a grammar allows."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import MAX_CHOICES, MAX_JSON_SCHEMA_CHARS, MAX_REGEX_CHARS
from app.schemas.conditions import UNSET, Schema, absent_or, any_of, given, when
from app.schemas.request import Candidate, LogprobsRequest

T = TypeVar("T")

_CONSTRAINTS = ("candidates", "regex", "json_schema")


def check_schema(value: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema, where it is not too long and not nested too deep."""
    try:
        written = json.dumps(value, separators=(",", ":"))
    except RecursionError:
        raise PydanticCustomError("schema_too_deep", "Input is nested too deep") from None
    if len(written) > MAX_JSON_SCHEMA_CHARS:
        raise PydanticCustomError(
            "schema_too_long",
            "Input should have at most {limit} characters",
            {"limit": MAX_JSON_SCHEMA_CHARS},
        )
    return value


class ConstrainedRequest(LogprobsRequest):
    """A request for completions that may be limited to some.

    A limit takes tokens away; those that are left keep the model's own log-probabilities.
    """

    candidates: (
        Annotated[list[Candidate], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]
        | None
    ) = None
    """The only completions that there are: texts or lists of token ids. They meet the context as
    in /v1/score: texts behind a text jointly, from a common start that ``boundary`` reports, and
    ids as they are. One that is empty, too long or holds a bad id is refused by index."""
    regex: Annotated[str, Field(min_length=1, max_length=MAX_REGEX_CHARS)] | None = None
    """The whole generated text matches this regular expression, in the syntax of Rust's ``regex``.
    Needs the server's ``grammar`` extra."""
    json_schema: Annotated[dict[str, Any], AfterValidator(check_schema)] | None = None
    """The whole generated text is JSON that this schema allows. Needs the ``grammar`` extra."""
    append_eos: bool | None = None
    """What a constraint allows is finished by an end token, which counts in its log-probability.
    Null: yes, where a constraint is given and anything ends a sequence. Without it a sequence is
    finished with its last token: of two candidates, or texts that match, one that begins the other
    always beats it."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        *(
            when(
                given(field),
                absent_or(**{other: UNSET for other in _CONSTRAINTS if other != field}),
            )
            for field in _CONSTRAINTS
        ),
        when(given("append_eos", {"const": True}), any_of(*map(given, _CONSTRAINTS))),
    )

    @property
    def constraint(self) -> str | None:
        """The field that limits completions; None where nothing does."""
        return next((name for name in _CONSTRAINTS if getattr(self, name) is not None), None)

    @field_validator("regex", "json_schema")
    @classmethod
    def _is_the_only_constraint(cls, value: T, info: ValidationInfo) -> T:
        if value is None:
            return value
        for name in _CONSTRAINTS:
            if name != info.field_name and info.data.get(name) is not None:
                raise PydanticCustomError(
                    "second_constraint",
                    "Input goes without {other}: there is one constraint at most",
                    {"other": name},
                )
        return value

    @field_validator("append_eos")
    @classmethod
    def _is_of_a_constraint(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and all(info.data.get(name) is None for name in _CONSTRAINTS):
            raise PydanticCustomError(
                "constraint_only", "Input goes with candidates, regex or json_schema only"
            )
        return value
