"""What ``chainrule score`` reads: JSONL or CSV, one request a record, never all in memory.

A line of JSONL is an object with the fields of POST /v1/score and, at will, an ``id`` of any kind,
which comes back with the result. CSV has a header: ``context``, at will ``id``, and the candidates
either in one column ``candidates``, as a JSON list, or one a column in ``candidate``,
``candidate_1`` and so on, whose empty cells are no candidates.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper, UnsupportedOperation
from pathlib import Path
from typing import Any, BinaryIO, Literal

from app.client import InvalidRequest
from app.http.strict_json import JsonError, parse_json

Format = Literal["jsonl", "csv"]

MAX_LINE_BYTES = 64 << 20
"""Of one record; a longer one is reported, and not held."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """One record, not parsed yet.

    Attributes:
        line: where it begins, from 1.
        raw: a line of JSON, the cells of a CSV record by column, or what is wrong with it.
    """

    line: int
    raw: bytes | dict[str, str] | InvalidRequest

    def fields(self) -> dict[str, Any]:
        """The fields of the request, and ``id`` where it has one.

        Raises:
            InvalidRequest: it is no request.
        """
        if isinstance(self.raw, InvalidRequest):
            raise self.raw
        return _of_json(self.raw) if isinstance(self.raw, bytes) else _of_cells(self.raw)


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or standard input, which is read once.

    Attributes:
        path: None for standard input.
        format: of its records.
    """

    path: Path | None
    format: Format

    def records(self) -> Iterator[Record]:
        """All of them, in order.

        Raises:
            OSError: the file cannot be read.
            InvalidRequest: a CSV file's header cannot be used.
        """
        if self.path is None:
            yield from self._read(_stdin())
            return
        with self.path.open("rb") as file:
            yield from self._read(file)

    def digest(self) -> str | None:
        """SHA-256 of the whole file; None for standard input."""
        if self.path is None:
            return None
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _read(self, file: BinaryIO) -> Iterator[Record]:
        return _csv_records(file) if self.format == "csv" else _json_records(file)


def _stdin() -> BinaryIO:
    try:
        descriptor = sys.stdin.fileno()
    except UnsupportedOperation:
        return sys.stdin.buffer
    # Its own buffer: a thread that still waits for input as the process ends holds the buffer's
    # lock, which would be fatal to the process for the buffer of sys.stdin.
    return open(descriptor, "rb", closefd=False)


def _json_records(file: BinaryIO) -> Iterator[Record]:
    for number, line in enumerate(_lines(file), start=1):
        text = line.removeprefix(_BOM) if number == 1 else line
        if len(line) > MAX_LINE_BYTES:
            yield Record(number, _bad(f"the line is longer than {MAX_LINE_BYTES} bytes"))
        elif text.strip():
            yield Record(number, text)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines; of one that is too long, only a beginning that is too long as well."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        part = line
        while part and not part.endswith(b"\n"):
            part = file.readline(MAX_LINE_BYTES + 1)
        yield line


def _csv_records(file: BinaryIO) -> Iterator[Record]:
    # Bytes that are no text must fail their own record, not the file.
    text = TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _rows(text)
    finally:
        text.detach()


def _rows(text: TextIOWrapper) -> Iterator[Record]:
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(text, strict=True)
    try:
        header = _header(next(reader, []))
    except csv.Error as error:
        raise InvalidRequest(f"the CSV header cannot be read: {error}") from None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Record(line, _bad(f"it is not CSV: {error}"))
            continue
        if cells is None:
            return
        if cells:
            yield Record(line, _by_column(header, cells))


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        if name not in ("id", "context") and not name.startswith("candidate"):
            raise InvalidRequest(f"the CSV header has a column {name!r}; known are id, context, "
                             "candidates, and candidate, candidate_1 and so on")  # fmt: skip
    if len(set(names)) != len(names):
        raise InvalidRequest("the CSV header names a column twice")
    if "context" not in names:
        raise InvalidRequest("the CSV header has no column context")
    if ("candidates" in names) + any(map(_holds_one, names)) != 1:
        raise InvalidRequest("the CSV header needs a column candidates, or columns candidate, "
                         "candidate_1 and so on, and not both")  # fmt: skip
    return names


def _holds_one(column: str) -> bool:
    return column.startswith("candidate") and column != "candidates"


def _by_column(header: list[str], cells: list[str]) -> dict[str, str] | InvalidRequest:
    if len(cells) != len(header):
        return _bad(f"it has {len(cells)} cells; the header has {len(header)}")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return _bad("it is not UTF-8")
    return dict(zip(header, cells, strict=True))


def _of_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: cells[name] for name in ("id", "context") if name in cells}
    if "candidates" in cells:
        found = _parsed(cells["candidates"].encode(), "candidates: ")
    else:
        found = [cell for name, cell in cells.items() if _holds_one(name) and cell]
    return {**fields, "candidates": found}


def _of_json(line: bytes) -> dict[str, Any]:
    fields = _parsed(line)
    if not isinstance(fields, dict):
        raise _bad("it is not a JSON object")
    return fields


def _parsed(text: bytes, place: str = "") -> Any:
    try:
        return parse_json(text, "it")
    except JsonError as error:
        key = "" if error.key is None else f"{error.key}: "
        raise _bad(f"{place}{key}{error}") from None


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="bad_line")
