"""The output of a dataset: a folder of Parquet files, one of scores for each block.

    OUTPUT/run.json                     what the run is: nothing else may go on with it
    OUTPUT/scores/part-000000.parquet   a row for each record of block 0 that was scored
    OUTPUT/errors/part-000000.parquet   one for each that was not, if there is one

A file has its name once it is whole, and that of the scores comes last: a block is done where it is
there, whatever ended the run.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from app.cli.score.output import Counts, OutputError, difference

BLOCK_ATTEMPTS: Final = 3
"""As often a block may be begun in one run: an actor may die for another reason than its block."""

_PART = re.compile(r"part-(\d{6,})\.parquet")


class BlockFiles:
    """Where the rows of one block go.

    Args:
        folder: of the whole output.
        number: of the block, from 0.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.scores = folder / "scores" / f"part-{number:06}.parquet"
        self.errors = folder / "errors" / f"part-{number:06}.parquet"
        self._attempts = folder / "scores" / f".part-{number:06}.attempts"

    def begin(self, about: str) -> None:
        """Count an attempt at the block.

        Args:
            about: the block, for people.

        Raises:
            OutputError: it has been begun too often: whatever scored it has died each time.
        """
        with self._attempts.open("ab") as file:
            file.write(b".")
            count = file.tell()
        if count > BLOCK_ATTEMPTS:
            raise OutputError(
                f"{BLOCK_ATTEMPTS} actors have died, as when memory runs out, over {about}"
            )

    def end(self) -> None:
        """The block is done."""
        self._attempts.unlink(missing_ok=True)

    def counts(self) -> Counts:
        """What a block that is done came to.

        Raises:
            OutputError: a file is not what was written.
        """
        failed = _rows(self.errors) if self.errors.exists() else 0
        return Counts(scored=_rows(self.scores), failed=failed)


class OutputFolder:
    """The folder, held for one run as long as the block lasts.

    Args:
        path: of the folder; it is made if need be.
        manifest: what the run is.
        overwrite: begin anew where there is another run's output.

    Raises:
        OutputError: there is, and it shall be kept; another process writes to it; or it cannot be
            written.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], *, overwrite: bool) -> None:
        self.path = path
        try:
            for name in ("scores", "errors"):
                (path / name).mkdir(parents=True, exist_ok=True)
            self._lock = self._claimed(manifest, overwrite)
        except OSError as error:
            raise OutputError(f"cannot write {error.filename or path}: {error.strerror}") from None

    def close(self) -> None:
        """Let go of it; a folder of no errors is removed."""
        os.close(self._lock)
        errors = self.path / "errors"
        if not any(errors.iterdir()):
            errors.rmdir()

    def done(self) -> dict[int, Counts]:
        """The blocks that are done, by number."""
        numbers = sorted(int(match[1]) for match in self._parts("scores"))
        return {number: BlockFiles(self.path, number).counts() for number in numbers}

    def _claimed(self, manifest: Mapping[str, Any], overwrite: bool) -> int:
        place = self.path / "run.json"
        lock = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check(place, manifest, overwrite)
        except BlockingIOError:
            os.close(lock)
            raise OutputError(f"another process writes to {self.path}") from None
        except (OSError, OutputError):
            os.close(lock)
            raise
        return lock

    def _check(self, place: Path, manifest: Mapping[str, Any], overwrite: bool) -> None:
        wanted = json.dumps(manifest, sort_keys=True, indent=2) + "\n"
        found = place.read_bytes().decode(errors="replace") if place.exists() else None
        if found == wanted and not overwrite:
            self._remove_drafts()
            return
        if not overwrite and (found is not None or self._parts("scores")):
            reason = "of another run" if found is None else difference(found, manifest)
            raise OutputError(f"{self.path} holds results {reason}; --overwrite begins anew")
        place.unlink(missing_ok=True)
        for name in ("scores", "errors"):
            for match in self._parts(name):
                (self.path / name / match[0]).unlink()
        self._remove_drafts()
        draft = place.with_name(".run.json")
        draft.write_text(wanted)
        draft.replace(place)

    def _remove_drafts(self) -> None:
        """What an actor was writing as it was ended."""
        for name in ("scores", "errors"):
            for draft in (self.path / name).glob(".part-*"):
                draft.unlink(missing_ok=True)

    def _parts(self, name: str) -> list[re.Match[str]]:
        found = (_PART.fullmatch(one.name) for one in (self.path / name).iterdir())
        return [match for match in found if match is not None]


def _rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError):
        raise OutputError(f"{path} cannot be read; without it its block is scored again") from None
