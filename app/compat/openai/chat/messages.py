"""The messages of POST /v1/chat/completions: who says what, in texts."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from app.compat.foreign_fields import ForeignRequest
from app.schemas.bounds import MAX_CONTENT_PARTS, MAX_MESSAGES
from app.schemas.request import Message, Request, Text

_UNREAD: Final = {
    "image_url": "images are not read here",
    "input_audio": "sound is not read here",
    "video_url": "videos are not read here",
    "file": "files are not read here",
    "refusal": "send it as text",
}
"""Kinds of parts that the API has and a text model cannot take."""


def _refuse_unread(value: object) -> object:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind in _UNREAD:
        raise PydanticCustomError(
            "unread_part", "{kind} is refused: {why}", {"kind": kind, "why": _UNREAD[kind]}
        )
    return value


def _only(why: str, *neutral: object) -> BeforeValidator:
    """Refuses every value but null and these, all of which are empty."""

    def check(value: object) -> None:
        if value is not None and value not in neutral:
            raise PydanticCustomError("not_served", "Input should be null: {why}", {"why": why})

    return BeforeValidator(check)


def _nothing(*neutral: list[Any]) -> Any:
    return Field(default=None, json_schema_extra={"enum": [None, *neutral]})


_NO_TOOLS: Final = "tools are not called here"


def _refuse_tool(role: object) -> object:
    if role in ("tool", "function"):
        raise PydanticCustomError(
            "tool_role", "{role} is refused: {why}", {"role": role, "why": _NO_TOOLS}
        )
    return role


def _refuse_null(content: object) -> object:
    if content is None:
        raise PydanticCustomError(
            "null_content",
            "Input should be text or parts of type text: messages of tool calls alone, without "
            "content, are not served",
        )
    return content


Unused = Annotated[Any, _only("it is not shown to the model"), _nothing()]
NoTools = Annotated[Any, _only(_NO_TOOLS), _nothing()]


class TextPart(ForeignRequest, Request):
    """A text in a message."""

    type: Literal["text"]
    text: Text


TextParts = Annotated[
    list[Annotated[TextPart, BeforeValidator(_refuse_unread)]],
    Field(min_length=1, max_length=MAX_CONTENT_PARTS, fail_fast=True),
]


class ChatMessage(ForeignRequest, Request):
    """One turn of a conversation."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant"], BeforeValidator(_refuse_tool)
    ]
    """Who speaks; the chat template knows what to do with it, or refuses it. Tools do not: they are
    not called here."""
    content: Annotated[Text | TextParts, BeforeValidator(_refuse_null)]
    """Text, or parts of type ``text``, which are put together with line breaks. Text that spells a
    control token stays text."""
    name: Unused
    """Not served: null."""
    refusal: Unused
    """Not served: null."""
    audio: Unused
    """Not served: null."""
    reasoning: Unused
    """Not served: null."""
    reasoning_content: Unused
    """Not served: null."""
    annotations: Annotated[Any, _only("it is not shown to the model", []), _nothing([])]
    """Not served: null or empty."""
    function_call: NoTools
    """Not served: null."""
    tool_call_id: NoTools
    """Not served: null."""
    tool_calls: Annotated[Any, _only(_NO_TOOLS, []), _nothing([])]
    """Not served: null or empty."""

    @property
    def native(self) -> Message:
        """The same message as the native routes have it; its fields have been checked."""
        content = self.content
        if not isinstance(content, str):
            content = "\n".join(part.text for part in content)
        return Message.model_construct(role=self.role, content=content)


ChatMessages = Annotated[
    list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
]
