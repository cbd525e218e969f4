"""What System One shows to a model: text, or any object or array as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, JsonValue, PlainValidator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import MAX_DOCUMENT_FIELDS, MAX_TEXT_CHARS
from app.schemas.conditions import NOT_BLANK, Schema, any_of
from app.schemas.json_content import MAX_JSON_BYTES, MAX_JSON_VALUES, check_json, json_text
from app.schemas.request import Text

Content = str | dict[str, Any] | list[Any]

_IMAGES: Final[dict[str, tuple[str, ...]]] = {
    "image": ("data_base64", "part", "image_url", "source", "data", "url"),
    "image_url": ("image_url",),
    "input_image": ("image_url", "file_id"),
}
"""Parts of messages that hold an image, by their type: the keys one of which has it."""
_WORDS: Final = ("source", "data", "url")
"""Those of them that other objects have as well: there an object or a link is an image, and no
other text."""
_LINKS: Final = ("data:", "http://", "https://", "file://")
_FORMATS: Final = {"format", "media_type", "mime_type", "mimeType"}
"""Keys beside them that say how the bytes of an image are written."""

SAYS: Final[Schema] = any_of(
    {"type": "string", "pattern": NOT_BLANK},
    {"type": "object", "minProperties": 1},
    {"type": "array", "minItems": 1},
)
"""What is not blank, in the document."""


def content_text(content: Content) -> str:
    """What the model reads: text as it is, the others as JSON without spaces."""
    return content if isinstance(content, str) else json_text(content)


def is_blank(content: Content | None) -> bool:
    """Whether it says nothing: null, white space, or an object or array that holds nothing."""
    return not (content.strip() if isinstance(content, str) else content)


def _read_content(value: object) -> Content:
    if isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS:
            raise PydanticCustomError(
                "string_too_long",
                "Text may be {limit} characters long",
                {"limit": MAX_TEXT_CHARS},
            )
        return value
    if not isinstance(value, dict | list):
        raise PydanticCustomError("content_type", "Input should be text, an object or an array")
    if isinstance(value, dict) and len(value) > MAX_DOCUMENT_FIELDS:
        raise PydanticCustomError(
            "json_size", "An object may have {limit} keys", {"limit": MAX_DOCUMENT_FIELDS}
        )
    check_json(value)
    if _holds_image(value):
        raise PydanticCustomError("image", "images are not read here")
    return value


def _holds_image(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_holds_image, value))
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    keys = _IMAGES.get(kind, ()) if isinstance(kind, str) else ()
    if any(_is_image(key, value) for key in keys if key in value):
        return True
    return any(map(_holds_image, value.values()))


def _is_image(key: str, part: dict[Any, Any]) -> bool:
    """Whether what a part of a message has under the key is an image, or says where one is."""
    value = part[key]
    if key not in _WORDS:
        return value is not None
    if isinstance(value, str):
        return value.startswith(_LINKS) or not _FORMATS.isdisjoint(part)
    return isinstance(value, dict)


_Key = Annotated[str, Field(max_length=MAX_JSON_BYTES)]
AnyContent = Annotated[
    Content,
    PlainValidator(
        _read_content,
        json_schema_input_type=Text
        | Annotated[dict[_Key, JsonValue], Field(max_length=MAX_DOCUMENT_FIELDS)]
        | Annotated[list[JsonValue], Field(max_length=MAX_JSON_VALUES)],
    ),
]
"""Text, or an object or array that the model reads as JSON."""
