"""A Parquet file that is there whole or not at all, written a group of rows at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_IN_GROUP: Final = 10_000
"""Rows that are written together at most."""

GROUP_BYTES: Final = 16 << 20
"""The same in bytes of JSON: rows may be large."""


class ParquetRows:
    """A file of rows. It has its name once the block ends; if that fails, it is removed.

    Args:
        path: its name.
        schema: of its rows.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        # Readers of a folder pass over what begins with a dot.
        self._draft = path.with_name(f".{path.name}.{uuid4().hex}")
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._writer = pq.ParquetWriter(self._draft, schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                self._draft.replace(self._path)
        finally:
            self._draft.unlink(missing_ok=True)

    def add(self, row: dict[str, Any], size: int) -> None:
        """Write a row, by column; what it lacks is null. ``size`` is that of its JSON, in bytes."""
        self._rows.append(row)
        self._bytes += size
        if len(self._rows) >= ROWS_IN_GROUP or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows, self._bytes = [], 0
