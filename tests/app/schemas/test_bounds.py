"""Every list, text, number and object of every request has a bound, and the bound is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from app.schemas.bounds import MAX_JSON_SCHEMA_CHARS
from app.schemas.json_content import MAX_JSON_BYTES
from tests.app.compat.decisions.decision_calls import chat_engine
from tests.app.conftest import client_of, shell_app
from tests.app.schemas.request_fields import BODIES, fields_of, is_allowed, sample
from tests.app.schemas.test_numbers import told

BOUNDS = {
    "string": ("maxLength",),
    "array": ("maxItems",),
    "object": ("maxProperties",),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
}

TEXT = {"type": "string"}

FREE = {"json_schema": MAX_JSON_SCHEMA_CHARS, "data": MAX_JSON_BYTES}
"""Fields that take any JSON, and how long it may be as text."""

ANY_JSON: dict[str, Any] = {}
"""What the document says of the values in it where such a field takes texts as well."""


def is_bounded(schema: Mapping[str, Any]) -> bool:
    """Whether it is a few values only, an object of known fields, or has all bounds of its kind.

    Unknown fields that are null are thrown away, so the body's length bounds them well enough.
    """
    others = schema.get("additionalProperties")
    if {"enum", "const"} & schema.keys() or others in (False, {"type": "null"}):
        return True
    kind = schema.get("type")
    if kind in ("boolean", "null"):
        return True
    if kind == "string" and "pattern" in schema:
        return "*" not in schema["pattern"] and "+" not in schema["pattern"]
    if kind == "object" and schema.get("maxProperties") != 0:
        return "maxProperties" in schema and is_bounded(schema.get("propertyNames", {}) | TEXT)
    wanted = BOUNDS.get(kind or "", ("a type",))
    return all(b in schema or f"exclusive{b.capitalize()}" in schema for b in wanted)


BEYOND: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "maximum": lambda schema: schema["maximum"] + 1,
    "minimum": lambda schema: schema["minimum"] - 1,
    "exclusiveMaximum": lambda schema: schema["exclusiveMaximum"],
    "exclusiveMinimum": lambda schema: schema["exclusiveMinimum"],
    "maxLength": lambda schema: "a" * (schema["maxLength"] + 1),
    "minLength": lambda schema: "a" * (schema["minLength"] - 1),
    "maxItems": lambda schema: [sample(schema["items"])] * (schema["maxItems"] + 1),
    "minItems": lambda schema: [sample(schema["items"])] * (schema["minItems"] - 1),
    "maxProperties": lambda schema: dict.fromkeys(
        map(str, range(schema["maxProperties"] + 1)), sample(schema["additionalProperties"])
    ),
    "propertyNames": lambda schema: {
        "a" * (schema["propertyNames"]["maxLength"] + 1): sample(schema["additionalProperties"])
    },
}
"""Values that are one beyond a bound, and no worse than that."""


def beyond(schema: Mapping[str, Any]) -> list[Any]:
    """One value for each bound; none where only a few values, or nothing, may be."""
    if "enum" in schema or schema.get("maxProperties") == 0:
        return []
    return [value(schema) for bound, value in BEYOND.items() if bound in schema]


@pytest.mark.parametrize("name", sorted({name for _, name in BODIES}))
def test_everything_has_a_bound(name: str) -> None:
    """In the document, of all routes, the shapes of other APIs as well."""
    fields = [field for field in fields_of(name) if FREE.keys().isdisjoint(field.path.split("."))]
    assert fields
    unbounded = [field.path for field in fields if not is_bounded(field.schema)]
    if name == "SystemOneRequest":
        in_json = [field.path for field in fields if field.schema == ANY_JSON]
        assert in_json and unbounded == in_json
    else:
        assert unbounded == []


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "name"), BODIES)
async def test_every_bound_is_kept(path: str, name: str) -> None:
    """One beyond it is 422, by the field's name."""
    tried = 0
    async with client_of(shell_app(chat_engine())) as client:
        for field in fields_of(name):
            for body in map(field.body, beyond(field.schema)):
                response = await client.post(path, json=body)
                if response.status_code == 422 and told(response).startswith(field.path):
                    tried += 1
                else:
                    # It may still be what the field takes beside this.
                    assert is_allowed(name, body), (field, response.text)
    assert tried


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "name", "place"),
    [
        ("/v1/decode", "DecodeRequest", "json_schema"),
        ("/v1/decisions", "DecisionRequest", "input.0.content.0.data"),
        ("/v1/decisions", "DecisionRequest", "questions.0.instructions.0.data"),
        ("/v1/systemone", "SystemOneRequest", "state"),
        ("/v1/systemone", "SystemOneRequest", "questions.a.instructions"),
        ("/v1/systemone", "SystemOneRequest", "questions.a.criteria.a"),
    ],
)
async def test_any_json_has_a_length(path: str, name: str, place: str) -> None:
    """Where a field takes any JSON, its text has a bound."""
    field = next(field for field in fields_of(name) if field.path == place)
    size = FREE.get(place.rsplit(".", 1)[-1], MAX_JSON_BYTES)
    async with client_of(shell_app(chat_engine())) as client:
        for text in ("b" * size, ["b"] * (size // 2)):
            response = await client.post(path, json=field.body({"a": text}))
            assert response.status_code == 422
            assert told(response).startswith(f"{place}: ")
