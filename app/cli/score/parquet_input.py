"""Rows of a Parquet file as records: a column for each field of the request, and at will ``id``.

``context`` is text (or a list of token ids, or a list of structs ``role`` and ``content``),
``candidates`` a list of texts (or of lists of token ids). Any other field of POST /v1/score may be
a column too. A null cell is a field that the record does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from app.cli.score.record import Columns, Place, Record, Values
from app.client import InvalidRequest
from app.schemas.score import ScoreRequest

ROWS_AT_ONCE: Final = 256
"""Rows that are decoded together."""

BUFFER_BYTES: Final = 1 << 20
"""Of each column, read at once: a group of rows is never whole in memory."""


def parquet_records(
    file: BinaryIO, start: Place, columns: Columns | None = None
) -> Iterator[Record]:
    """The rows from ``start`` on, in order.

    Raises:
        InvalidRequest: it has a column that no record can have, or lacks one that all need.
        OSError: it is no Parquet file, or a damaged one.
    """
    with _readable():
        table = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        _check_columns(table.schema_arrow, columns)
        skipped, groups = _groups_from(table.metadata, start.offset)
    row, skip = start.offset, start.offset - skipped
    names = None if columns is None else ("id", *_needed_columns(columns))
    for batch in _batches(table, groups, names):
        rest = batch.slice(min(skip, batch.num_rows))
        skip -= batch.num_rows - rest.num_rows
        for raw in _rows(rest):
            row += 1
            yield Record(row, raw, Place(row, row + 1))


def count_rows(file: BinaryIO, columns: Columns | None = None) -> int:
    """How many rows it has, by its footer.

    Raises:
        InvalidRequest, OSError: as ``parquet_records``.
    """
    with _readable():
        table = pq.ParquetFile(file)
        _check_columns(table.schema_arrow, columns)
        return int(table.metadata.num_rows)


def _check_columns(schema: pa.Schema, columns: Columns | None) -> None:
    names = schema.names
    for name in names if columns is None else ():
        if name != "id" and name not in ScoreRequest.model_fields:
            raise InvalidRequest(f"the Parquet file has a column {name!r}; known are id and the "
                                 "fields of /v1/score")  # fmt: skip
    if len(set(names)) != len(names):
        raise InvalidRequest("the Parquet file has two columns of one name")
    for name in _needed_columns(columns):
        if name not in names:
            raise InvalidRequest(f"the Parquet file has no column {name}")
    kind = schema.field("id").type if "id" in names else pa.string()
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or _is_text(kind) or pa.types.is_null(kind)):
        raise InvalidRequest(f"the Parquet file's column id is {kind}; it is text or a whole "
                             "number")  # fmt: skip


def _needed_columns(columns: Columns | None) -> tuple[str, ...]:
    columns = columns or Columns()
    return (columns.context, *(columns.candidates or ("candidates",)))


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _groups_from(about: pq.FileMetaData, row: int) -> tuple[int, list[int]]:
    """The groups that are left from a row on, and how many rows lie before them."""
    before = 0
    for group in range(about.num_row_groups):
        rows = about.row_group(group).num_rows
        if before + rows > row:
            return before, list(range(group, about.num_row_groups))
        before += rows
    return before, []


def _batches(
    table: pq.ParquetFile, groups: list[int], names: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    there = None if names is None else [n for n in names if n in table.schema_arrow.names]
    batches = table.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=there)
    while True:
        with _readable():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _rows(batch: pa.RecordBatch) -> Iterator[Values | InvalidRequest]:
    try:
        found = batch.to_pylist()
    except UnicodeDecodeError:
        # It fails its own row, not the others.
        yield from (_row(batch.slice(row, 1)) for row in range(batch.num_rows))
        return
    yield from map(_values, found)


def _row(batch: pa.RecordBatch) -> Values | InvalidRequest:
    try:
        (found,) = batch.to_pylist()
    except UnicodeDecodeError:
        return InvalidRequest("it is not UTF-8", code="bad_line")
    return _values(found)


def _values(row: dict[str, Any]) -> Values:
    return Values({name: value for name, value in row.items() if value is not None})


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        words = str(error).split("\n")[0]
        raise OSError(f"the input cannot be read as Parquet: {words}") from None
