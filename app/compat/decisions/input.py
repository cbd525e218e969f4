"""What the questions of POST /v1/decisions are about: messages, and the parts that they hold."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.compat.foreign_fields import ForeignRequest
from app.schemas.conditions import Schema, absent_or, given, when
from app.schemas.json_content import MAX_JSON_VALUES, check_json, json_text
from app.schemas.request import Request, Text

MAX_PARTS = 256

_UNSERVED = {
    "input_image": "images are not read here",
    "input_file": "files are not read here",
    "input_audio": "sound is not read here",
    "function_call": "tool calls are not read here",
    "function_call_output": "tool calls are not read here",
    "custom_tool_call": "tool calls are not read here",
    "custom_tool_call_output": "tool calls are not read here",
}
"""Kinds of input that the API has and a text model cannot take."""


def by_type(*kinds: str) -> Discriminator:
    """Tells the members of a union, tagged with ``kinds``, by their ``type``."""
    return Discriminator(
        lambda value: (
            value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        ),
        custom_error_type="unknown_type",
        custom_error_message=f"Input should be an object whose type is one of {', '.join(kinds)}",
    )


def _refuse_unserved(value: object) -> object:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind in _UNSERVED:
        raise PydanticCustomError(
            "unserved_input", "{kind} is refused: {why}", {"kind": kind, "why": _UNSERVED[kind]}
        )
    return value


class CacheBreakpoint(ForeignRequest, Request):
    """Where a prefix ends that will be used again. Every prefix can be: nothing is to be done."""

    mode: Literal["explicit"]


class TextPart(ForeignRequest, Request):
    """Text of the input."""

    type: Literal["input_text"]
    text: Text
    prompt_cache_breakpoint: CacheBreakpoint | None = None
    """Accepted; without effect, as every prefix of the input is shared."""


class OutputTextPart(ForeignRequest, Request):
    """Text that an assistant wrote."""

    type: Literal["output_text"]
    text: Text


class RefusalPart(ForeignRequest, Request):
    """What an assistant said instead of an answer."""

    type: Literal["refusal"]
    refusal: Text

    @property
    def text(self) -> str:
        """The refusal."""
        return self.refusal


class JsonPart(ForeignRequest, Request):
    """An object, or a list of objects, shown to the model as JSON text."""

    type: Literal["input_json"]
    data: (
        dict[str, JsonValue]
        | Annotated[list[dict[str, JsonValue]], Field(max_length=MAX_JSON_VALUES)]
    )

    @field_validator("data", mode="after")
    @classmethod
    def _is_bounded(cls, data: Any) -> Any:
        check_json(data)
        return data

    @property
    def text(self) -> str:
        """The data as the model reads it: JSON without spaces."""
        return json_text(self.data)


AnyPart = TextPart | OutputTextPart | RefusalPart | JsonPart
Part = Annotated[
    Annotated[TextPart, Tag("input_text")]
    | Annotated[OutputTextPart, Tag("output_text")]
    | Annotated[RefusalPart, Tag("refusal")]
    | Annotated[JsonPart, Tag("input_json")],
    by_type("input_text", "input_json", "output_text", "refusal"),
    BeforeValidator(_refuse_unserved),
]
QuestionPart = Annotated[
    Annotated[TextPart, Tag("input_text")] | Annotated[JsonPart, Tag("input_json")],
    by_type("input_text", "input_json"),
    BeforeValidator(_refuse_unserved),
]

_PARTS_OF: dict[str, tuple[type[Request], ...]] = {
    "user": (TextPart, JsonPart),
    "developer": (TextPart,),
    "system": (TextPart,),
    "assistant": (OutputTextPart, RefusalPart),
}


def _parts_of(role: str) -> Schema:
    kinds = [get_args(part.model_fields["type"].annotation)[0] for part in _PARTS_OF[role]]
    return absent_or(content={"items": absent_or(type={"enum": kinds})})


class InputMessage(ForeignRequest, Request):
    """One message of the input."""

    type: Literal["message"] = "message"
    role: Literal["user", "developer", "system", "assistant"]
    """Who speaks. All of it is what the questions are about; none of it instructs the model."""
    content: Text | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)]
    """Text, or parts of the kinds that belong to the role."""
    phase: Literal["commentary", "final_answer"] | None = None
    """Of an assistant's message; shown beside the role."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        *(when(given("role", {"const": role}), _parts_of(role)) for role in _PARTS_OF),
        when(given("phase"), given("role", {"const": "assistant"})),
    )

    @field_validator("content", mode="after")
    @classmethod
    def _suits_the_role(cls, content: Any, info: ValidationInfo) -> Any:
        role = info.data.get("role", "user")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, _PARTS_OF[role]):
                raise PydanticCustomError(
                    "part_of_role",
                    "a message of role {role} has no {kind}",
                    {"role": role, "kind": part.type},
                )
        return content

    @field_validator("phase")
    @classmethod
    def _is_of_an_assistant(cls, phase: Any, info: ValidationInfo) -> Any:
        if phase is not None and info.data.get("role", "assistant") != "assistant":
            raise PydanticCustomError("phase_of_role", "Only an assistant's message has a phase")
        return phase


InputItem = Annotated[InputMessage, BeforeValidator(_refuse_unserved)]
