"""JSON that a model reads as text, within bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticCustomError

MAX_JSON_BYTES = 256 << 10
MAX_JSON_VALUES = 10_000
MAX_JSON_DEPTH = 32


def check_json(data: Any) -> None:
    """Raise ``PydanticCustomError`` where it is too large, too deep or too long."""
    depths = list(_depths(data, 1))
    if len(depths) > MAX_JSON_VALUES or max(depths) > MAX_JSON_DEPTH:
        raise PydanticCustomError(
            "json_size",
            "JSON may hold {values} values, {depth} deep",
            {"values": MAX_JSON_VALUES, "depth": MAX_JSON_DEPTH},
        )
    if len(json_text(data).encode()) > MAX_JSON_BYTES:
        raise PydanticCustomError(
            "json_size", "JSON may be {size} bytes long", {"size": MAX_JSON_BYTES}
        )


def json_text(data: object) -> str:
    """The data as the model reads it: JSON without spaces."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _depths(value: object, depth: int) -> Iterator[int]:
    """The depth of each value; not deeper than tells that it is too deep."""
    yield depth
    if depth > MAX_JSON_DEPTH:
        return
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from _depths(one, depth + 1)
