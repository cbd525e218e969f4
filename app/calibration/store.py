"""Calibrations by name: read from a folder at start, added to while the server runs."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from pydantic import ValidationError

from app.environment import env_name
from app.errors.table import (
    CalibrationExists,
    CalibrationNotFound,
    CalibrationNotStored,
    TooManyCalibrations,
)
from app.errors.validation import first_field_error
from app.http.strict_json import JsonError, parse_json
from app.schemas.bounds import MAX_CALIBRATION_BYTES, MAX_CALIBRATIONS
from app.schemas.calibration import CALIBRATION_NAME, Calibration
from app.settings import SettingsError, flag_name

SUFFIX: Final = ".json"


class CalibrationStore:
    """Those that a request may name.

    Args:
        folder: where they are kept; None keeps them in memory only.
        held: what is there already.
    """

    def __init__(
        self, folder: Path | None = None, held: Mapping[str, Calibration] | None = None
    ) -> None:
        self._folder = folder
        self._held = dict(held or {})
        self._lock = threading.Lock()

    @classmethod
    def read(cls, folder: Path | None) -> CalibrationStore:
        """Every ``*.json`` in the folder.

        Raises:
            SettingsError: the folder or a file in it cannot be read, or is no calibration.
        """
        if folder is None:
            return cls()
        try:
            paths = sorted(one for one in folder.iterdir() if one.suffix == SUFFIX)
            if len(paths) > MAX_CALIBRATIONS:
                raise _unfit(folder, f"it holds more than {MAX_CALIBRATIONS} calibrations")
            return cls(folder, {one.stem: _read(one) for one in paths})
        except OSError as error:
            raise _unfit(folder, f"cannot read it: {error.strerror}") from None

    def held(self) -> dict[str, Calibration]:
        """All of them by name, in order of the names."""
        return dict(sorted(self._held.items()))

    def find(self, name: str) -> Calibration:
        """The one of this name. Raises ``CalibrationNotFound``."""
        found = self._held.get(name)
        if found is None:
            raise CalibrationNotFound(f"There is no calibration {name!r} here.", "calibration")
        return found

    def check_room(self, name: str, *, overwrite: bool) -> None:
        """See whether one of this name could be added.

        Raises:
            CalibrationExists: there is one, which is not to be overwritten.
            TooManyCalibrations: there is no room.
        """
        if name in self._held:
            if not overwrite:
                raise CalibrationExists(
                    f"There is a calibration {name!r} already; overwrite replaces it.", "name"
                )
        elif len(self._held) >= MAX_CALIBRATIONS:
            raise TooManyCalibrations(f"There are {MAX_CALIBRATIONS} calibrations already.", "name")

    def add(self, name: str, calibration: Calibration, *, overwrite: bool) -> None:
        """Keep it, in its file first. Waits for the disk: not to be called on the event loop.

        Raises:
            CalibrationExists, TooManyCalibrations: see ``check_room``.
            CalibrationNotStored: the file cannot be written.
        """
        with self._lock:
            self.check_room(name, overwrite=overwrite)
            if self._folder is not None:
                try:
                    write_calibration(self._folder / f"{name}{SUFFIX}", calibration)
                except OSError as error:
                    raise CalibrationNotStored(f"{self._folder}: {error.strerror}") from error
            self._held[name] = calibration


def parse_calibration(content: bytes) -> Calibration:
    """A calibration from the bytes of its file.

    Raises:
        ValueError: it is none; one line says why.
    """
    if len(content) > MAX_CALIBRATION_BYTES:
        raise ValueError(f"it is longer than {MAX_CALIBRATION_BYTES} bytes")
    try:
        value = parse_json(content, "it")
    except JsonError as error:
        raise ValueError(str(error)) from None
    try:
        return Calibration.model_validate_json(content, strict=True)
    except ValidationError as error:
        complaints = error.errors(include_url=False)
        located = [{**one, "loc": ("body", *one["loc"])} for one in complaints]
        raise ValueError(first_field_error(located, value).message) from None


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write it as a file, which is there in full or not at all. Raises ``OSError``."""
    content = f"{calibration.model_dump_json(indent=2)}\n".encode()
    with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as draft:
        try:
            draft.write(content)
            draft.flush()
            os.fsync(draft.fileno())
            os.chmod(draft.name, 0o644)
            os.replace(draft.name, path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


def _read(path: Path) -> Calibration:
    if not re.fullmatch(CALIBRATION_NAME, path.stem):
        raise _unfit(path, "a calibration is called by letters, digits, '.', '_' and '-'")
    try:
        with path.open("rb") as file:
            return parse_calibration(file.read(MAX_CALIBRATION_BYTES + 1))
    except OSError as error:
        raise _unfit(path, f"cannot read it: {error.strerror}") from None
    except ValueError as error:
        raise _unfit(path, str(error)) from None


def _unfit(path: Path, why: str) -> SettingsError:
    name = "calibrations"
    return SettingsError(f"{env_name(name)} ({flag_name(name)}): {path}: {why}")
