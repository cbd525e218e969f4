"""The rows of one block, as ``ScoreRun`` writes its lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final, Self

import pyarrow as pa

from app.cli.score.arrow_types import IdKind, error_schema, id_kind, id_value, result_schema
from app.cli.score.dataset.folder import BlockFiles
from app.cli.score.output import Counts
from app.cli.score.parquet_file import ParquetRows

_PLACE: Final = (pa.field("file", pa.string()), pa.field("line", pa.int64()))

_OTHER_ID: Final = {
    "message": "id: it is not of the kind of the dataset's first id",
    "type": "invalid_request_error",
    "param": "id",
    "code": "invalid_value",
}


class BlockWriter:
    """Takes lines and writes rows, with the input's file before each.

    The files have their names once the block ends without an exception, that of the errors first.

    Args:
        files: where the rows go.
        file: the block's own input.
        ids: what kind they are in the dataset; a record with one of another kind is an error.
        about: what the metadata says.
    """

    def __init__(self, files: BlockFiles, file: str, ids: IdKind, about: Mapping[str, Any]) -> None:
        self.tally = Counts()
        self._files = files
        self._file = file
        self._ids = ids
        self._schemas = [make(ids, about, _PLACE) for make in (result_schema, error_schema)]
        self._scores = ParquetRows(files.scores, self._schemas[0])
        self._errors: ParquetRows | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._scores)
        return self

    def __exit__(self, *raised: Any) -> None:
        if self._errors is None:
            self._files.errors.unlink(missing_ok=True)
        # What was entered last is left first, so the scores come last.
        self._open.__exit__(*raised)

    def result(self, line: bytes) -> None:
        """Write a result."""
        row = json.loads(line)
        if not self._fits(row):
            self._fail(row, _OTHER_ID, len(line))
            return
        self._scores.add(self._placed(row), len(line))
        self.tally.scored += 1

    def error(self, line: bytes) -> None:
        """Write what is wrong with a record."""
        row = json.loads(line)
        self._fail(row, row["error"], len(line))

    def _fail(self, row: dict[str, Any], error: Mapping[str, Any], size: int) -> None:
        if self._errors is None:
            self._errors = ParquetRows(self._files.errors, self._schemas[1])
            self._open.enter_context(self._errors)
        self._errors.add({**self._placed(row), **error}, size)
        self.tally.failed += 1

    def _placed(self, row: dict[str, Any]) -> dict[str, Any]:
        given = row.get("id") if self._fits(row) else None
        return {**row, "file": self._file, "id": id_value(self._ids, given)}

    def _fits(self, row: dict[str, Any]) -> bool:
        value = row.get("id")
        return value is None or self._ids == "json" or id_kind("none", value) == self._ids
