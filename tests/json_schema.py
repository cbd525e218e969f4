"""As much of JSON Schema as the OpenAPI document is written in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}

_OF_NUMBERS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
}
_OF_SIZES: dict[str, tuple[type, Callable[[int, int], bool]]] = {
    "minLength": (str, lambda size, bound: size >= bound),
    "maxLength": (str, lambda size, bound: size <= bound),
    "minItems": (list, lambda size, bound: size >= bound),
    "maxItems": (list, lambda size, bound: size <= bound),
    "minProperties": (dict, lambda size, bound: size >= bound),
    "maxProperties": (dict, lambda size, bound: size <= bound),
}
_NOTES = {"title", "description", "default", "examples", "discriminator", "format"}


def allows(schema: Any, value: Any, document: Mapping[str, Any]) -> bool:
    """Whether a value is one of the schema's; references are looked up in the document.

    Raises:
        NotImplementedError: the schema has a keyword that is not read here.
    """
    if isinstance(schema, bool):
        return schema
    rest = {key: part for key, part in schema.items() if key not in _NOTES}
    return all(_holds(key, part, value, schema, document) for key, part in rest.items())


def _holds(key: str, part: Any, value: Any, schema: Any, document: Mapping[str, Any]) -> bool:
    def is_one(inner: Any, of: Any = value) -> bool:
        return allows(inner, of, document)

    if key in _OF_NUMBERS:
        return not _TYPES["number"](value) or _OF_NUMBERS[key](value, part)
    if key in _OF_SIZES:
        kind, fits = _OF_SIZES[key]
        return not isinstance(value, kind) or fits(len(value), part)
    entries = value if isinstance(value, list) else []
    fields = value if isinstance(value, dict) else {}
    extra = fields.keys() - schema.get("properties", {}).keys()
    checks: dict[str, Callable[[], bool]] = {
        "$ref": lambda: is_one(_found(part, document)),
        "type": lambda: _TYPES[part](value),
        "const": lambda: _equal(part, value),
        "enum": lambda: any(_equal(one, value) for one in part),
        "not": lambda: not is_one(part),
        "allOf": lambda: all(map(is_one, part)),
        "anyOf": lambda: any(map(is_one, part)),
        "oneOf": lambda: sum(map(is_one, part)) == 1,
        "if": lambda: is_one(schema.get("then", True)) if is_one(part) else True,
        "then": lambda: True,
        "pattern": lambda: not isinstance(value, str) or re.search(part, value) is not None,
        "required": lambda: not isinstance(value, dict) or set(part) <= value.keys(),
        "properties": lambda: all(is_one(part[k], v) for k, v in fields.items() if k in part),
        "additionalProperties": lambda: all(is_one(part, fields[name]) for name in extra),
        "propertyNames": lambda: all(is_one(part, name) for name in fields),
        "items": lambda: all(is_one(part, entry) for entry in entries),
        "prefixItems": lambda: all(map(is_one, part, entries)),
        "contains": lambda: not isinstance(value, list) or any(is_one(part, e) for e in entries),
        "uniqueItems": lambda: all(e not in entries[:at] for at, e in enumerate(entries)),
    }
    if key not in checks:
        raise NotImplementedError(key)
    return checks[key]()


def _found(reference: str, document: Mapping[str, Any]) -> Any:
    found: Any = document
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def _equal(one: Any, other: Any) -> bool:
    """True is no 1 in JSON."""
    return one == other and isinstance(one, bool) is isinstance(other, bool)
