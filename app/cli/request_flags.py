"""A request's fields as flags: what the API documents, the command line documents the same way.

The flags are read off the request's JSON schema, so that a new field needs nothing here. Texts of
a list are given by repeating the flag, numbers of a list with commas, anything else as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.http.strict_json import JsonError, parse_json
from app.schemas.request import Request
from app.settings import flag_name

FROM_JSON: Final = "from_json"
"""Where the parsed arguments say that texts are JSON."""

_TEXTS: Final = {"context", "candidates", "pmi_context", "calibration_contexts"}
"""Fields that are text, or with ``--from-json`` any JSON that the request takes."""


def add_request_flags(parser: argparse.ArgumentParser, request: type[Request], *own: str) -> None:
    """A flag for each of the request's fields except ``own``, which the command reads itself."""
    group = parser.add_argument_group("what is asked")
    group.add_argument(
        "--from-json",
        dest=FROM_JSON,
        action="store_true",
        help="contexts and candidates are JSON: texts in quotes, lists of token ids, or a "
        'context\'s messages, as in \'[{"role": "user", "content": "Hi"}]\'',
    )
    flags = {name: flag_name(name) for name in request.model_fields if name not in own}
    for name, field in request.model_json_schema()["properties"].items():
        if name in flags:
            _add_flag(group, name, field, flags)


def add_context(parser: argparse.ArgumentParser) -> None:
    """The context that a command asks about."""
    parser.add_argument(
        "context",
        metavar="CONTEXT",
        help="text; - reads standard input, and drops one line break at its end, which is the "
        "shell's or the editor's: whoever means one gives two",
    )


def read_text(value: str) -> str:
    """An argument; ``-`` is all of standard input but one line break at its end.

    Raises:
        ValueError: standard input is not UTF-8.
    """
    if value != "-":
        return value
    try:
        # As bytes: Python would take every \r\n for \n, and those are other tokens.
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("context: standard input is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def request_fields(args: dict[str, Any], request: type[Request]) -> dict[str, Any]:
    """The request's fields among the parsed arguments. ``--local`` has loaded its model by name.

    Raises:
        ValueError: what should be JSON is not.
    """
    fields = {name: value for name, value in args.items() if name in request.model_fields}
    if args["local"]:
        fields.pop("model", None)
    if args.get(FROM_JSON):
        for name in _TEXTS & fields.keys():
            fields[name] = _parsed(name, fields[name])
    return fields


def _parsed(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_parsed(name, one) for one in value]
    try:
        return parse_json(os.fsencode(value), repr(value))
    except JsonError as error:
        raise ValueError(f"{name}: {error}") from None


def _add_flag(group: Any, name: str, field: dict[str, Any], flags: Mapping[str, str]) -> None:
    about = _as_help(field.get("description", ""), {**flags, name: name}).replace("%", "%%")
    group.add_argument(
        flag_name(name), dest=name, default=argparse.SUPPRESS, help=about, **_options(name, field)
    )


def _as_help(about: str, flags: Mapping[str, str]) -> str:
    """A field's own words where they are about flags: nobody types null there."""
    words = " ".join(about.split()).replace("Null: ", "Default: ").replace("null: ", "default: ")
    return re.sub("``(.*?)``", lambda quoted: flags.get(quoted[1], quoted[1]), words)


def _options(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """What argparse is to make of a field of this schema."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    kind = kinds[0]
    if kind.get("type") == "boolean":
        return {"action": argparse.BooleanOptionalAction}
    word = name.rsplit("_", 1)[-1].upper()
    if "enum" in kind:
        names = [one if isinstance(one, str) else json.dumps(one) for one in kind["enum"]]
        return {"type": _one_of(dict(zip(names, kind["enum"], strict=True)))} | _choices(names)
    if _takes_texts(kind):
        return {"action": "append", "metavar": word.removesuffix("S")}
    if kind.get("type") == "array":
        numbers = kind["items"].get("type") == "integer"
        if numbers:
            return {"type": _integers, "metavar": "N,N"}
        return {"type": _any_json, "metavar": "JSON"}
    types: dict[str | None, Callable[[str], Any]] = {"integer": int, "number": float, "string": str}
    read = types.get(kind.get("type"), _any_json)
    return {"type": read, "metavar": "JSON" if read is _any_json else word}


def _choices(names: list[str]) -> dict[str, Any]:
    return {"metavar": "{" + ",".join(names) + "}"}


def _takes_texts(kind: dict[str, Any]) -> bool:
    """Whether it is a list of texts, or a text or such a list."""
    options = kind.get("anyOf", [kind])
    lists = [option["items"] for option in options if option.get("type") == "array"]
    return any(
        one.get("type") == "string" for items in lists for one in items.get("anyOf", [items])
    )


def _one_of(values: dict[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in values:
            raise argparse.ArgumentTypeError(f"it is one of {', '.join(values)}")
        return values[text]

    return read


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError("it is numbers with commas between them") from None


def _any_json(text: str) -> Any:
    try:
        return parse_json(os.fsencode(text), "it")
    except JsonError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
