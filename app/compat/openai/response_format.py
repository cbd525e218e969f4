"""What the text of an answer may be: anything, JSON, or JSON that a schema allows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.compat.foreign_fields import ForeignRequest
from app.schemas.bounds import MAX_SCHEMA_NAME_CHARS, MAX_TEXT_CHARS
from app.schemas.conditions import UNSET, Schema, absent_or, given, when
from app.schemas.constraint import check_schema
from app.schemas.request import Request


class JsonSchemaFormat(ForeignRequest, Request):
    """A JSON schema, with a name that changes nothing."""

    name: Annotated[str, Field(max_length=MAX_SCHEMA_NAME_CHARS)]
    schema_: Annotated[dict[str, Any], AfterValidator(check_schema)] = Field(alias="schema")
    """The whole text is JSON that it allows."""
    description: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | None = None
    """Taken and without effect: the model is not told of it."""
    strict: bool | None = None
    """Taken and without effect: a schema is always kept to."""


class ResponseFormat(ForeignRequest, Request):
    """How an answer is written. JSON needs the server's ``grammar`` extra."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = Field(default=None, validate_default=True)
    """Of the type ``json_schema``."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        when(given("type", {"const": "json_schema"}), given("json_schema")),
        when(
            given("type", {"enum": ["text", "json_object"]}),
            absent_or(json_schema=UNSET),
        ),
    )

    @property
    def constraint(self) -> dict[str, Any] | None:
        """The schema of what may be generated; None where anything may."""
        if self.json_schema is not None:
            return self.json_schema.schema_
        return {"type": "object"} if self.type == "json_object" else None

    @property
    def param(self) -> str:
        """The field that a complaint about the schema names."""
        if self.json_schema is None:
            return "response_format"
        return "response_format.json_schema.schema"

    @field_validator("json_schema")
    @classmethod
    def _belongs_to_the_type(
        cls, value: JsonSchemaFormat | None, info: ValidationInfo
    ) -> JsonSchemaFormat | None:
        kind = info.data.get("type")
        if kind == "json_schema" and value is None:
            raise PydanticCustomError("missing", "Field required")
        if kind in ("text", "json_object") and value is not None:
            raise PydanticCustomError("not_of_this_type", "Input goes with type json_schema only")
        return value
