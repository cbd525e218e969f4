"""JSON that a model reads as text, within bounds."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from pydantic_core import PydanticCustomError

MAX_JSON_BYTES = 256 << 10
MAX_JSON_VALUES = 10_000
MAX_JSON_DEPTH = 32


def check_json(data: Any) -> None:
    """Raise ``PydanticCustomError`` where it is too large, too deep or too long.

    Stops at the bound: however much there is, no more than ``MAX_JSON_VALUES`` are looked at.
    """
    values, depth, level = 1, 1, _filled([data])
    while level:
        values += sum(map(len, level))
        depth += 1
        if values > MAX_JSON_VALUES or depth > MAX_JSON_DEPTH:
            raise PydanticCustomError(
                "json_size",
                "JSON may hold {values} values, {depth} deep",
                {"values": MAX_JSON_VALUES, "depth": MAX_JSON_DEPTH},
            )
        level = [inner for one in level for inner in _filled(_values(one))]
    if len(json_text(data).encode()) > MAX_JSON_BYTES:
        raise PydanticCustomError(
            "json_size", "JSON may be {size} bytes long", {"size": MAX_JSON_BYTES}
        )


def json_text(data: object) -> str:
    """The data as the model reads it: JSON without spaces."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _filled(values: Collection[Any]) -> list[Any]:
    """The objects and arrays among them that hold anything."""
    return [value for value in values if isinstance(value, dict | list) and value]


def _values(value: dict[str, Any] | list[Any]) -> Collection[Any]:
    return value.values() if isinstance(value, dict) else value
