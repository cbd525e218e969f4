"""What ``chainrule score`` writes, so that a run that was ended, however, can be gone on with.

Results and errors go to two files, each line under the number of the input's line, in the input's
order, and each handed to the system as one piece as soon as it is there. So whatever ended a run,
the two files hold between them the results of a first part of the input, and at most one torn
line. Beside them lies what the run was: nothing else may go on with it.

    INPUT  1 2 3 4 5 ...      OUTPUT         {"line":1,...  {"line":3,...  {"li
                              OUTPUT.errors  {"line":2,...
                              done are 1, 2, 3; the torn line is cut; 4 is next
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any, Self

from app.cli.score.record import Record

_NUMBERED = re.compile(rb'\{"line":(\d+)[,}]')


class OutputError(Exception):
    """The output cannot be written, or belongs to another run. The message is one line."""


@dataclass(frozen=True, slots=True)
class SidecarPaths:
    """What lies beside the results.

    Attributes:
        errors: of the records, unless they go elsewhere.
        manifest: what the run was.
        draft: the manifest while it is written.
    """

    errors: Path
    manifest: Path
    draft: Path

    @classmethod
    def of(cls, path: Path) -> Self:
        """Of a file of results."""
        ends = ("errors.jsonl", "run.json", "run.json.new")
        return cls(*(path.with_name(f"{path.name}.{end}") for end in ends))

    @staticmethod
    def draft_of(path: Path) -> Path:
        """The lines that a Parquet file is made of."""
        return path.with_name(f"{path.name}.draft.jsonl")


@dataclass(slots=True)
class Counts:
    """Lines so far."""

    scored: int = 0
    failed: int = 0

    @property
    def lines(self) -> int:
        """All of them."""
        return self.scored + self.failed


class StreamOutput:
    """Standard output, errors for people on standard error. Nothing of it can be resumed."""

    def __init__(self) -> None:
        self.tally = Counts()

    def remaining(self, records: Iterable[Record]) -> Iterable[Record]:
        """All of them."""
        return records

    def result(self, line: bytes) -> None:
        """Write a result, which ends with its line."""
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        self.tally.scored += 1

    def error(self, line: bytes) -> None:
        """Write what is wrong with a record."""
        told = json.loads(line)
        sys.stderr.write(f"chainrule: line {told['line']}: {told['error']['message']}\n")
        self.tally.failed += 1

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """There is nothing to close."""


class FileOutput:
    """Two files and the manifest of the run that they belong to.

    Args:
        path: of the results.
        errors: of the errors; beside the results by default.
        manifest: what the run is: two runs with equal ones give equal files.
        overwrite: begin anew where there is another run's output.
        name: what the user knows the results as; by default ``path``.

    Raises:
        OutputError: there is, and it shall be kept; another process writes to it; or a file
            cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        errors: Path | None,
        manifest: Mapping[str, Any],
        *,
        overwrite: bool,
        name: Path | None = None,
    ) -> None:
        self.tally = Counts()
        self._path = path
        self._name = name or path
        self._beside = SidecarPaths.of(path)
        self.errors = errors or self._beside.errors
        self._files: list[FileIO] = []
        try:
            for place in (path, self.errors):
                self._files.append(_locked(place))
            self._claim(manifest, overwrite)
        except OSError as error:
            self._release()
            raise OutputError(f"cannot write {error.filename or path}: {error.strerror}") from None
        except OutputError:
            self._release()
            raise

    def remaining(self, records: Iterable[Record]) -> Iterable[Record]:
        """The records that have neither result nor error yet; what is torn is cut off."""
        ends = [0, 0]
        written = [_Written(self._path), _Written(self.errors)]
        rest = iter(records)
        begun: list[Record] = []
        for record in rest:
            place = next((n for n, one in enumerate(written) if one.line == record.line), None)
            if place is None:
                begun.append(record)
                break
            ends[place] = written[place].advance()
            self._count(is_error=place == 1)
        for file, end in zip(self._files, ends, strict=True):
            file.truncate(end)
        return chain(begun, rest)

    def result(self, line: bytes) -> None:
        """Write a result, which ends with its line."""
        _write(self._files[0], line)
        self._count(is_error=False)

    def error(self, line: bytes) -> None:
        """Write what is wrong with a record."""
        _write(self._files[1], line)
        self._count(is_error=True)

    def finish(self) -> None:
        """Nothing is left to do: what is written is the result."""

    def close(self) -> None:
        """Put both files on disk and let go of them. An empty file of errors is removed."""
        for file in self._files:
            os.fsync(file.fileno())
        self._release()

    def _release(self) -> None:
        if len(self._files) == 2 and not _has_bytes(self._files[1]):
            self.errors.unlink(missing_ok=True)
        for file in self._files:
            file.close()

    def _claim(self, manifest: Mapping[str, Any], overwrite: bool) -> None:
        wanted = json.dumps(manifest, sort_keys=True, indent=2) + "\n"
        place = self._beside.manifest
        found = place.read_bytes().decode(errors="replace") if place.exists() else None
        if found == wanted and not overwrite:
            return
        if not overwrite and (found is not None or any(map(_has_bytes, self._files))):
            reason = "of another run" if found is None else difference(found, manifest)
            raise OutputError(f"{self._name} holds results {reason}; --overwrite begins anew")
        for file in self._files:
            file.truncate(0)
        # Whole or not at all, so that output never lies beside half a manifest.
        self._beside.draft.write_text(wanted)
        self._beside.draft.replace(place)

    def _count(self, *, is_error: bool) -> None:
        self.tally.failed += is_error
        self.tally.scored += not is_error


class _Written:
    """The whole lines of a file that was written before.

    Attributes:
        line: the number that the next one stands under; None where there is no whole one.
    """

    def __init__(self, path: Path) -> None:
        self._ends = _numbered_lines(path)
        self._next()

    def advance(self) -> int:
        """Go on; where the line ends that was next."""
        end = self._end
        self._next()
        return end

    def _next(self) -> None:
        self.line, self._end = next(self._ends, (None, 0))


def _numbered_lines(path: Path) -> Iterator[tuple[int | None, int]]:
    """The number of each line and where it ends, up to the first that is torn."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            match = _NUMBERED.match(line)
            if match is None or not line.endswith(b"}\n"):
                return
            end += len(line)
            yield int(match[1]), end


def _locked(path: Path) -> FileIO:
    file = FileIO(path, "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OutputError(f"another process writes to {path}") from None
    return file


def _has_bytes(file: FileIO) -> bool:
    return os.fstat(file.fileno()).st_size > 0


def _write(file: FileIO, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def difference(found: str, manifest: Mapping[str, Any]) -> str:
    """What another run's manifest says of it beside this one's."""
    try:
        old = json.loads(found)
    except (ValueError, RecursionError):
        old = None
    if not isinstance(old, dict):
        return "of a run that cannot be recognized"
    other = [name for name, value in manifest.items() if old.get(name) != value]
    return f"of another run: {' and '.join(other) or 'something'} differ"
