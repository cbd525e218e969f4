"""What pydantic found wrong with a body, as one sentence and the path of one field.

pydantic reports a union's every branch and names the branch in the location, as in
``("body", "candidates", 0, "list[int]", 1)``. A caller knows nothing of branches, so a
segment counts only where the body itself has it: here the field is ``candidates.0.1``.

The server and the client say it with the same words: neither HTTP nor a model is needed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.errors.suggestion import Schema, known_fields, suggestion

_CODES = {"missing": "missing_field", "extra_forbidden": "unknown_field"}
_WORDS = {
    "missing": "this field is required",
    "extra_forbidden": "there is no such field",
}
_REMOVED_FIELDS = {"boundary_detail": "; /v1/audit says how candidates met the context"}
"""Fields that there were, and what takes their place."""
_IN_PYTHONS_WORDS = {"literal_error", "none_required", "too_short", "too_long"}
_JSON_WORDS = (
    *(("None", "null"), ("True", "true"), ("False", "false")),
    *((" after validation", ""), ("Tuple", "List")),
)
_MAX_SEGMENT = 100
"""Characters of an unknown key that are repeated to the caller."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field and what is wrong with it.

    Attributes:
        path: to it; empty for the body as a whole.
        text: the complaint.
        code: of the error object.
        meant: the field beside it that an unknown one may stand for.
    """

    path: tuple[str, ...]
    text: str
    code: str
    meant: str | None = None

    @property
    def param(self) -> str | None:
        """The dotted path, or None for the body as a whole."""
        return ".".join(self.path) or None

    @property
    def message(self) -> str:
        """A sentence that names the field."""
        return f"{self.param or 'request body'}: {self.text}"


class BodyError(Protocol):
    """A body that does not fit, as FastAPI's ``RequestValidationError`` has it."""

    body: Any

    def errors(self) -> Sequence[Any]:
        """pydantic's complaints, located from ``"body"`` on."""


def field_error(error: BodyError) -> FieldError:
    """The complaint to report of a request to a route, which may have left the body's schema with
    the error, as ``body_schema``."""
    return first_field_error(error.errors(), error.body, getattr(error, "body_schema", None))


def first_field_error(
    errors: Iterable[Mapping[str, Any]], body: object, schema: Schema | None = None
) -> FieldError:
    """The complaint to report: the first field at fault, at its most precise.

    Where the branches of a union complain about the same value, the branch that got deepest
    into it knows best; branches that got equally deep are offered as alternatives.

    Args:
        errors: pydantic's, located from ``"body"`` on; at least one.
        body: what was validated.
        schema: of the body; where it is given, an unknown field is told the one that it may be.
    """
    found = [_read(item, body, schema) for item in errors]
    missing = {one.path for one in found if one.code == "missing_field"}
    # Under another name it is there all the same.
    renamed = (one for one in found if one.meant and (*one.path[:-1], one.meant) in missing)
    first = next(renamed, found[0])
    related = [one for one in found if one.path[: len(first.path)] == first.path]
    path = max((one.path for one in related), key=len)
    same = [one for one in related if one.path == path]
    texts = dict.fromkeys(one.text for one in same)
    return FieldError(path, ", or ".join(texts), same[0].code)


def _read(item: Mapping[str, Any], body: object, schema: Schema | None) -> FieldError:
    kind = item["type"]
    place, *rest = item["loc"] or ("body",)
    path = _resolve(rest, body, kind) if place == "body" else tuple(map(str, rest))
    words = _words(item)
    meant = None
    if kind == "extra_forbidden" and schema is not None and place == "body":
        meant = _meant(rest, body, schema)
        words += "" if meant is None else f"; you may mean {meant}"
    return FieldError(path, words, _CODES.get(kind, "invalid_value"), meant)


def _meant(segments: Sequence[str | int], body: object, schema: Schema) -> str | None:
    """What an unknown field may stand for."""
    path: list[str | int] = []
    around, value = body, body
    for segment in segments:
        if _holds(value, segment):
            path.append(segment)
            around, value = value, value[segment]  # type: ignore[index]
    if not path or not isinstance(around, Mapping) or str(path[-1]) in _REMOVED_FIELDS:
        return None
    return suggestion(str(path[-1]), known_fields(schema, body, path[:-1]), around)


def _resolve(segments: Sequence[str | int], body: object, kind: str) -> tuple[str, ...]:
    path: list[str] = []
    value = body
    for place, segment in enumerate(segments):
        if _holds(value, segment):
            value = value[segment]  # type: ignore[index]
        elif kind != "missing" or place < len(segments) - 1:
            continue
        path.append(shown_key(str(segment)))
    return tuple(path)


def shown_key(key: str) -> str:
    """A key of the body, cut where it is long, in quotation marks where it would not be seen."""
    shown = key[:_MAX_SEGMENT]
    return shown if shown.strip() else json.dumps(shown, ensure_ascii=False)


def _holds(value: object, segment: str | int) -> bool:
    if isinstance(value, Mapping):
        return segment in value
    return isinstance(value, list) and isinstance(segment, int) and segment < len(value)


def _words(item: Mapping[str, Any]) -> str:
    known = _WORDS.get(item["type"])
    if known is not None:
        return known + _REMOVED_FIELDS.get(str(item["loc"][-1]) if item["loc"] else "", "")
    text = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if item["type"] in _IN_PYTHONS_WORDS:
        for python, json in _JSON_WORDS:
            text = text.replace(python, json)
    # A word in capitals, as JSON is, keeps them.
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
