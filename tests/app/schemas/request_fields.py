"""Every field of every request, as the OpenAPI document has it, with a request around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.main import create_app
from app.settings import Settings
from tests.json_schema import allows

DOCUMENT: dict[str, Any] = json.loads(json.dumps(create_app(Settings()).openapi()))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]

SMALLEST: dict[str, dict[str, Any]] = {
    "ChoiceQuestion": {
        "type": "choice",
        "instructions": "a",
        "choices": [{"value": "a"}, {"value": "b"}],
    },
    "ScoreQuestion": {
        "type": "score",
        "instructions": "a",
        "levels": [{"label": "a"}, {"label": "b"}],
    },
    "CalibrationRequest": {
        "lines": [
            {
                "input": "a",
                "question": {
                    "type": "score",
                    "instructions": "a",
                    "levels": [{"label": "a"}, {"label": "b"}],
                },
                "answer": place % 2,
            }
            for place in range(20)
        ]
    },
    "ChatRequest": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2},
    "CompletionRequest": {"prompt": "a", "max_tokens": 2},
    "DecodeRequest": {"context": "a", "max_tokens": 2},
    "NamedNoul": {"type": "noul", "instructions": "a"},
    "NamedChoice": {"type": "choice", "criteria": {"a": None}},
    "NamedScore": {"type": "score", "criteria": ["a"]},
    "SystemOneRequest": {
        "state": "a",
        "questions": {"a": {"type": "noul", "instructions": "a"}},
    },
    "Reported": {"totals": [-1.5]},
    "TokenizeRequest": {"prompt": "a"},
}
"""Small and quickly answered, where the required fields alone would not be."""

COMPANIONS: dict[str, dict[str, dict[str, Any]]] = {
    "AuditRequest": {
        "pairs": {"candidates": ["a", "b", "c"], "pairs": [[0, 2]]},
        "reported": {"candidates": ["a", "b", "c"], "reported": {"totals": [-1.5, -2.5, -3.5]}},
    },
    "ChatRequest": {
        "max_completion_tokens": {"max_tokens": None},
        "stream_options": {"stream": True},
        "top_logprobs": {"logprobs": True},
    },
    "CompletionRequest": {"stream_options": {"stream": True}},
    "DecodeRequest": {
        "append_eos": {"candidates": ["a"]},
        "early_stopping": {"strategy": "beam"},
        "feasible": {"strategy": "exact"},
        "length_penalty": {"strategy": "beam"},
        "max_expansions": {"strategy": "exact"},
        "num_beams": {"strategy": "beam"},
        "num_return_sequences": {"strategy": "beam"},
        "threshold": {"strategy": "exact"},
    },
    "LabelScoreRequest": {"items": {"query": [5]}, "query": {"items": [[5]]}},
    "Reported": {
        "order": {"totals": None, "order": [1, 2]},
        "probabilities": {"totals": None, "probabilities": [0.5, 0.25, 0.125]},
        "token_logprobs": {"totals": None, "token_logprobs": [[-1.5], [-2.5], [-3.5]]},
    },
    "ScoreRequest": {
        "calibration_contexts": {"normalization": "calibrated"},
        "gnmt_alpha": {"normalization": "gnmt"},
        "max_expansions": {"boundary": "marginal"},
        "pmi_context": {"normalization": "pmi"},
    },
    "TokenizeRequest": {"messages": {"prompt": None}},
    "InputMessage": {"phase": {"role": "assistant"}},
}
"""What some fields do not go without."""


@dataclass(frozen=True)
class RequestField:
    """A place in a request.

    Attributes:
        path: names of fields and indices of entries, dotted, as complaints have it.
        schema: what the document says of it; where that are several kinds, one of them.
        body: the request with a value there.
    """

    path: str
    schema: Mapping[str, Any]
    body: Callable[[Any], Any]


def shapes(schema: Mapping[str, Any]) -> Iterator[str]:
    """The names of the objects that a body may be."""
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    if "properties" in SCHEMAS.get(name, {}):
        yield name
        return
    for branch in _branches(_resolved(schema)):
        yield from shapes(branch)


def fields_of(name: str) -> Iterator[RequestField]:
    """All places in requests of one shape, nested ones as well."""
    return _fields("", {"$ref": f"#/components/schemas/{name}"}, smallest(name), lambda body: body)


def smallest(name: str) -> dict[str, Any]:
    """The smallest object of a shape."""
    found: dict[str, Any] = sample({"$ref": f"#/components/schemas/{name}"})
    return found


def is_allowed(name: str, body: Any) -> bool:
    """Whether the document allows a body of this shape."""
    return allows(SCHEMAS[name], body, DOCUMENT)


def _fields(
    path: str, schema: Mapping[str, Any], value: Any, put: Callable[[Any], Any]
) -> Iterator[RequestField]:
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    schema = _resolved(schema)
    branches = _branches(schema)
    if not branches and path:
        yield RequestField(path, schema, put)
    for branch in branches:
        fits = allows(branch, value, DOCUMENT)
        yield from _fields(path, branch, value if fits else sample(branch), put)
    for field, part in schema.get("properties", {}).items():
        inner = f"{path}.{field}".lstrip(".")
        more = _companions(name, field)
        within = _in_object(put, {**value, **more}, field)
        yield from _fields(inner, part, more.get(field, value.get(field)), within)
    if isinstance(schema.get("additionalProperties"), dict) and schema.get("maxProperties") != 0:
        names = schema.get("propertyNames", True)
        key = next(one for one in ("a", "0") if allows(names, one, DOCUMENT))
        within = _in_object(put, value or {}, key)
        yield from _fields(f"{path}.{key}", schema["additionalProperties"], None, within)
    if "items" in schema:
        entries = value or [sample(schema["items"])]
        yield from _fields(f"{path}.0", schema["items"], entries[0], _in_list(put, entries))


def _companions(name: str, field: str) -> dict[str, Any]:
    return COMPANIONS.get(name, {}).get(field, {})


def _in_object(put: Callable[[Any], Any], value: dict[str, Any], field: str) -> Callable[..., Any]:
    return lambda inner: put({**value, field: inner})


def _in_list(put: Callable[[Any], Any], entries: list[Any]) -> Callable[..., Any]:
    return lambda inner: put([inner, *entries[1:]])


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    return SCHEMAS[name] if name else schema


def _branches(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def sample(schema: Mapping[str, Any]) -> Any:
    """The smallest value of a schema."""
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    if name in SMALLEST:
        return SMALLEST[name]
    schema = _resolved(schema)
    if branches := _branches(schema):
        return sample(branches[0])
    if "enum" in schema or "const" in schema:
        return next(iter(schema.get("enum", ())), schema.get("const"))
    if schema.get("type") == "object":
        return {field: sample(schema["properties"][field]) for field in schema.get("required", ())}
    if schema.get("type") == "array":
        return [sample(schema["items"]) for _ in range(schema.get("minItems", 0))]
    small = {"string": "a", "integer": schema.get("minimum", 1), "number": 1}
    return small.get(schema.get("type", ""))


BODIES = [
    (path, name)
    for path, methods in DOCUMENT["paths"].items()
    for operation in methods.values()
    if "requestBody" in operation
    for name in shapes(operation["requestBody"]["content"]["application/json"]["schema"])
]
"""Every route that takes a body, with every shape that it takes."""
