"""The Arrow types of results and errors, read off the models of what POST /v1/score answers.

int is int64, float is float64 (so that a number keeps its bits), a list is a list, an object a
struct. What is absent from the JSON is null. A new field of the answer needs nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
from pydantic import BaseModel

from app.cli.score.run import NOT_WRITTEN
from app.schemas.error import ErrorObject
from app.schemas.score_response import ScoreResponse

OF_THE_RUN: Final = ("model", "fingerprint", "numeric_error")
"""Fields of an answer that are equal in all of a run; they are in the file's metadata."""

METADATA_KEY: Final = b"chainrule"
"""Under which the schema's metadata holds a JSON object."""

IdKind = Literal["none", "int", "text", "json"]
"""What ids are: whole numbers, texts, or the JSON of whatever else there is."""

_ID_TYPES: Final[Mapping[IdKind, pa.DataType]] = {
    "int": pa.int64(),
    "text": pa.string(),
    "json": pa.string(),
}
_SCALARS: Final = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
_MAX_INT: Final = 1 << 63


def arrow_type(annotation: Any) -> pa.DataType:
    """What values of a field are in Arrow; null is allowed everywhere.

    Raises:
        TypeError: there is no such type.
    """
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or is_dataclass(annotation)
    ):
        return pa.struct(_fields(annotation))
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return arrow_type(args[0])
    if origin in (Union, UnionType):
        args = tuple(arg for arg in args if arg is not NoneType)
    elif origin is Literal:
        args = tuple({type(arg) for arg in args})
    elif origin in (list, tuple) and len(set(args)) == 1:
        return pa.list_(arrow_type(args[0]))
    if origin in (Union, UnionType, Literal) and len(args) == 1:
        return arrow_type(args[0])
    raise TypeError(f"this is a bug: there is no Arrow type for {annotation}")


def result_schema(kind: IdKind, about: Mapping[str, Any], first: Iterable[pa.Field]) -> pa.Schema:
    """Of results: ``first``, the id, and the fields of an answer.

    Args:
        kind: of the ids.
        about: what the metadata says.
        first: columns before the id, which say where a record stood.
    """
    left_out = NOT_WRITTEN.union(OF_THE_RUN)
    answer = [field for field in _fields(ScoreResponse) if field.name not in left_out]
    return pa.schema([*first, *_id_field(kind), *answer], metadata=_metadata(kind, about))


def error_schema(kind: IdKind, about: Mapping[str, Any], first: Iterable[pa.Field]) -> pa.Schema:
    """Of errors: ``first``, the id, and the fields of an error object."""
    error = _fields(ErrorObject)
    return pa.schema([*first, *_id_field(kind), *error], metadata=_metadata(kind, about))


def id_kind(kind: IdKind, value: Any) -> IdKind:
    """What ids are, of which some are of a kind and another one is ``value``."""
    found: IdKind = "json"
    if value is None:
        return kind
    if isinstance(value, str):
        found = "text"
    elif isinstance(value, int) and not isinstance(value, bool) and -_MAX_INT <= value < _MAX_INT:
        found = "int"
    return found if kind in ("none", found) else "json"


def id_value(kind: IdKind, value: Any) -> Any:
    """An id as a column of its kind has it."""
    return json.dumps(value) if kind == "json" and value is not None else value


def read_metadata(schema: pa.Schema) -> dict[str, Any] | None:
    """What the metadata says; None where it says nothing of ours."""
    try:
        found = json.loads((schema.metadata or {})[METADATA_KEY])
    except (KeyError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _fields(kind: Any) -> list[pa.Field]:
    """A column for each field of a model, or of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    names = kind.model_fields if issubclass(kind, BaseModel) else [one.name for one in fields(kind)]
    return [pa.field(name, arrow_type(hints[name])) for name in names]


def _id_field(kind: IdKind) -> list[pa.Field]:
    return [] if kind == "none" else [pa.field("id", _ID_TYPES[kind])]


def _metadata(kind: IdKind, about: Mapping[str, Any]) -> dict[bytes, bytes]:
    ids = {"id_is_json": True} if kind == "json" else {}
    return {METADATA_KEY: json.dumps({**about, **ids}, sort_keys=True).encode()}
