"""Results as one Parquet file, in a run that can be gone on with however it was ended.

Nothing can be appended to a Parquet file, so results are lines of JSON first, in a draft beside the
output that is resumed as any other (see ``output``). When all are there, they are written as
Parquet, a group of rows at a time; the file gets its name once it is whole, and the draft is
removed. Errors are lines of JSON and stay so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.cli.score.arrow_types import (
    OF_THE_RUN,
    IdKind,
    id_kind,
    id_value,
    read_metadata,
    result_schema,
)
from app.cli.score.output import Counts, FileOutput, OutputError, SidecarPaths, difference
from app.cli.score.parquet_file import ParquetRows
from app.cli.score.record import Record


class ParquetOutput:
    """A Parquet file, a file of errors, and while it is not finished the draft.

    Args:
        path: of the results.
        errors: of the errors; beside the results by default.
        manifest: what the run is, as for ``FileOutput``.
        overwrite: begin anew where there is another run's output.

    Raises:
        OutputError: as ``FileOutput``.
    """

    def __init__(
        self, path: Path, errors: Path | None, manifest: Mapping[str, Any], *, overwrite: bool
    ) -> None:
        self.errors = errors or SidecarPaths.of(path).errors
        self._path = path
        self._manifest = manifest
        self._draft: FileOutput | None = None
        self._is_finished = False
        self._done = None if overwrite else self._found()
        if self._done is None:
            draft = SidecarPaths.draft_of(path)
            self._draft = FileOutput(draft, self.errors, manifest, overwrite=overwrite, name=path)
            if overwrite:
                path.unlink(missing_ok=True)

    @property
    def tally(self) -> Counts:
        """Lines so far."""
        return self._done or self._open().tally

    def remaining(self, records: Iterable[Record]) -> Iterable[Record]:
        """The records that have neither result nor error yet."""
        return () if self._done else self._open().remaining(records)

    def result(self, line: bytes) -> None:
        """Write a result, which ends with its line."""
        self._open().result(line)

    def error(self, line: bytes) -> None:
        """Write what is wrong with a record."""
        self._open().error(line)

    def finish(self) -> None:
        """Make the Parquet file of the draft; every record has its result or its error."""
        if self._done:
            return
        counts = self._open().tally
        lines = SidecarPaths.draft_of(self._path)
        kind, about = self._survey(lines)
        schema = result_schema(
            kind,
            {**about, "run": self._manifest, "failed": counts.failed},
            [pa.field("line", pa.int64())],
        )
        with lines.open("rb") as file, ParquetRows(self._path, schema) as rows:
            for line in file:
                row = json.loads(line)
                rows.add({**row, "id": id_value(kind, row.get("id"))}, len(line))
        self._is_finished = True

    def close(self) -> None:
        """Put everything on disk and let go of it; a draft that is not wanted any more goes."""
        if self._draft is not None:
            self._draft.close()
        if self._done or self._is_finished:
            draft = SidecarPaths.draft_of(self._path)
            draft.unlink(missing_ok=True)
            SidecarPaths.of(draft).manifest.unlink(missing_ok=True)

    def _open(self) -> FileOutput:
        if self._draft is None:
            raise RuntimeError("this is a bug: a run that is finished has no draft")
        return self._draft

    def _found(self) -> Counts | None:
        """What is there, if it is this run's finished output; None where there is none."""
        if not self._path.exists():
            return None
        try:
            file = pq.ParquetFile(self._path)
            about = read_metadata(file.schema_arrow) or {}
            rows = file.metadata.num_rows
        except (pa.ArrowInvalid, OSError):
            about, rows = {}, 0
        run = about.get("run")
        if run != json.loads(json.dumps(self._manifest)):
            reason = difference(json.dumps(run), self._manifest)
            raise OutputError(f"{self._path} holds results {reason}; --overwrite begins anew")
        return Counts(scored=rows, failed=about["failed"])

    def _survey(self, lines: Path) -> tuple[IdKind, dict[str, Any]]:
        """What kind the ids are, and what all answers say alike."""
        kind: IdKind = "none"
        about: dict[str, Any] = {}
        with lines.open("rb") as file:
            for line in file:
                row = json.loads(line)
                kind = id_kind(kind, row.get("id"))
                about = about or {name: row[name] for name in OF_THE_RUN if name in row}
        return kind, about
