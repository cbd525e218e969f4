"""What ``chainrule score`` reads: JSONL, CSV or Parquet, a request a record, never all in memory.

A line of JSONL is an object with the fields of POST /v1/score and, at will, an ``id`` of any kind,
which comes back with the result. CSV has a header: ``context``, at will ``id``, and the candidates
either in one column ``candidates``, as a JSON list, or one a column in ``candidate``,
``candidate_1`` and so on, whose empty cells are no candidates. Parquet has a column for each field
that its records have, see ``parquet_input``. ``Columns`` gives other names.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import UnsupportedOperation
from pathlib import Path
from typing import BinaryIO, Final, Literal

from app.cli.score.record import (
    BEGINNING,
    Columns,
    Place,
    Record,
    bad_line,
    holds_one,
    wanted_columns,
)
from app.client import InvalidRequest

Format = Literal["jsonl", "csv", "parquet"]

BY_SUFFIX: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
"""What a file's name says of its format."""

MAX_LINE_BYTES = 64 << 20
"""Of one record; a longer one is reported, and not held."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or standard input, which is read once.

    Attributes:
        path: None for standard input.
        format: of its records.
        columns: where their parts are; None for the names that are known.
    """

    path: Path | None
    format: Format
    columns: Columns | None = None

    def records(self, start: Place = BEGINNING) -> Iterator[Record]:
        """All of them from ``start`` on, in order.

        Raises:
            OSError: the file cannot be read.
            InvalidRequest: a CSV file's header, or the columns of a Parquet file, cannot be used.
        """
        if self.path is None:
            yield from self._read(_stdin(), start)
            return
        with self.path.open("rb") as file:
            yield from self._read(file, start)

    def check(self) -> None:
        """See whether the file can be read at all.

        Raises:
            OSError, InvalidRequest: as ``records``, where the file's beginning or end tells.
        """
        if self.path is None:
            return
        with self.path.open("rb") as file:
            if self.format == "parquet":
                from app.cli.score.parquet_input import count_rows

                count_rows(file, self.columns)

    def digest(self) -> str | None:
        """SHA-256 of the whole file; None for standard input."""
        if self.path is None:
            return None
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _read(self, file: BinaryIO, start: Place) -> Iterator[Record]:
        records = self._whole(file, start)
        if self.columns is None:
            return records
        return (replace(record, columns=self.columns) for record in records)

    def _whole(self, file: BinaryIO, start: Place) -> Iterator[Record]:
        if self.format == "parquet":
            # Its package is an extra, and takes long to import.
            from app.cli.score.parquet_input import parquet_records

            return parquet_records(file, start, self.columns)
        if self.format == "csv":
            return _csv_records(file, start, self.columns)
        return _json_records(file, start)


def _stdin() -> BinaryIO:
    try:
        descriptor = sys.stdin.fileno()
    except UnsupportedOperation:
        return sys.stdin.buffer
    # Its own buffer: a thread that still waits for input as the process ends holds the buffer's
    # lock, which would be fatal to the process for the buffer of sys.stdin.
    return open(descriptor, "rb", closefd=False)


def _json_records(file: BinaryIO, start: Place) -> Iterator[Record]:
    if start.offset:
        file.seek(start.offset)
    offset = start.offset
    for number, (line, size) in enumerate(_lines(file), start=start.line):
        offset += size
        end = Place(offset, number + 1)
        text = line.removeprefix(_BOM) if number == 1 else line
        if len(line) > MAX_LINE_BYTES:
            yield Record(number, bad_line(f"the line is longer than {MAX_LINE_BYTES} bytes"), end)
        elif text.strip():
            yield Record(number, text, end)


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines and their sizes; of one that is too long, only a beginning that is too long as well."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        part, size = line, len(line)
        while part and not part.endswith(b"\n"):
            part = file.readline(MAX_LINE_BYTES + 1)
            size += len(part)
        yield line, size


class _CsvText:
    """The lines of a CSV file, as ``csv.reader`` wants them, and how far they have been read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._parts: Iterator[bytes] = iter(())
        self.offset = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        part = next(self._parts, None)
        if part is None:
            # A carriage return alone ends a line too.
            self._parts = iter(next(self._file).splitlines(keepends=True))
            part = next(self._parts)
        text = part.removeprefix(_BOM) if self.offset == 0 else part
        self.offset += len(part)
        # Bytes that are no text must fail their own record, not the file.
        return text.decode("utf-8", "surrogateescape")

    def seek(self, offset: int) -> None:
        """Go on from there."""
        self._file.seek(offset)
        self._parts = iter(())
        self.offset = offset


def _csv_records(file: BinaryIO, start: Place, columns: Columns | None) -> Iterator[Record]:
    csv.field_size_limit(MAX_LINE_BYTES)
    text = _CsvText(file)
    reader = csv.reader(text, strict=True)
    try:
        header = _header(next(reader, []), columns)
    except csv.Error as error:
        raise InvalidRequest(f"the CSV header cannot be read: {error}") from None
    before = 0
    if start.offset:
        text.seek(start.offset)
        before = start.line - 1 - reader.line_num
    while True:
        line = before + reader.line_num + 1
        cells: list[str] | None = None
        try:
            cells = next(reader, None)
            if cells is None:
                return
            raw = _by_column(header, cells)
        except csv.Error as error:
            raw = bad_line(f"it is not CSV: {error}")
        if cells != []:
            yield Record(line, raw, Place(text.offset, before + reader.line_num + 1))


def _header(cells: list[str], columns: Columns | None) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        is_known = name in ("id", "context") or name.startswith("candidate")
        if columns is None and not is_known:
            raise InvalidRequest(f"the CSV header has a column {name!r}; known are id, context, "
                                 "candidates, and candidate, candidate_1 and so on; others are "
                                 "named by --context-column and --candidate-columns")  # fmt: skip
    wanted = names if columns is None else ["id", *wanted_columns(columns)]
    if any(names.count(name) > 1 for name in wanted):
        raise InvalidRequest("the CSV header names a column twice")
    for name in wanted_columns(columns):
        if name not in names:
            raise InvalidRequest(f"the CSV header has no column {name}")
    own = columns.candidates if columns is not None else ()
    if not own and ("candidates" in names) + any(map(holds_one, names)) != 1:
        raise InvalidRequest("the CSV header needs a column candidates, or columns candidate, "
                             "candidate_1 and so on, and not both")  # fmt: skip
    return names


def _by_column(header: list[str], cells: list[str]) -> dict[str, str] | InvalidRequest:
    if len(cells) != len(header):
        return bad_line(f"it has {len(cells)} cells; the header has {len(header)}")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return bad_line("it is not UTF-8")
    # Of columns that nobody reads several may have one name, or none.
    return dict(zip(header, cells, strict=True))
