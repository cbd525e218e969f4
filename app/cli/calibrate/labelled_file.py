"""Labelled questions from a file: read in full, or refused in one line."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from app.client import ClientError, InvalidRequest
from app.compat.decisions.calibration_request import CalibrationRequest
from app.http.strict_json import JsonError, parse_json
from app.schemas.bounds import MAX_BODY_BYTES, MAX_CALIBRATION_LINES

_OF_A_LINE: Final = re.compile(r"lines\.(\d+)\.?")


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """What is in it.

    Attributes:
        lines: objects, not checked yet; those that are blank are left out.
        numbers: of their lines in the file, from 1.
    """

    lines: list[dict[str, Any]]
    numbers: list[int]

    def check(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The request of these lines and other fields, found to be one.

        Raises:
            InvalidRequest: it is none; a line is named by its number in the file.
        """
        body = {**fields, "lines": self.lines}
        try:
            CalibrationRequest.model_validate(body)
        except ValidationError as error:
            refusal = InvalidRequest.of(error, body)
            raise InvalidRequest(self.explain(refusal), code=refusal.code) from None
        return body

    def explain(self, error: ClientError) -> str:
        """An error's message, with the number of the line that it is about in place of its index.

        A server may have sent any name.
        """
        found = _OF_A_LINE.match(error.param or "")
        if found is None or int(found[1]) >= len(self.numbers):
            return error.message
        message = error.message.removeprefix(f"{error.param}: ")
        rest = (error.param or "")[found.end() :]
        return f"line {self.numbers[int(found[1])]}: " + (f"{rest}: " if rest else "") + message


def read_labelled(name: str) -> LabelledFile:
    """The lines of a file; ``-`` is standard input.

    Raises:
        OSError: the file cannot be read.
        InvalidRequest: it is too large, or a line is no object.
    """
    content = _content(name)
    if len(content) > MAX_BODY_BYTES:
        raise InvalidRequest(f"the labelled questions are more than {MAX_BODY_BYTES} bytes")
    lines: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        if len(lines) == MAX_CALIBRATION_LINES:
            raise InvalidRequest(f"there are more than {MAX_CALIBRATION_LINES} labelled questions")
        lines.append(_parsed(line, number))
        numbers.append(number)
    if not lines:
        raise InvalidRequest("there is no labelled question")
    return LabelledFile(lines, numbers)


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(MAX_BODY_BYTES + 1)
    with Path(name).open("rb") as file:
        return file.read(MAX_BODY_BYTES + 1)


def _parsed(line: bytes, number: int) -> dict[str, Any]:
    try:
        value = parse_json(line, "it")
    except JsonError as error:
        key = "" if error.key is None else f"{error.key}: "
        raise InvalidRequest(f"line {number}: {key}{error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"line {number}: it is not a JSON object")
    return value
