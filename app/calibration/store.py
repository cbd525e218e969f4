"""Calibrations by name: read from a folder at start, added to while the server runs."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from pydantic import ValidationError

from app.environment import env_name
from app.errors.table import (
    CalibrationExists,
    CalibrationNotFound,
    CalibrationNotStored,
    CalibrationReadOnly,
    TooManyCalibrations,
)
from app.errors.validation import first_field_error
from app.http.strict_json import JsonError, parse_json
from app.schemas.bounds import MAX_CALIBRATION_BYTES, MAX_CALIBRATIONS
from app.schemas.calibration import CALIBRATION_NAME, Calibration
from app.settings import SettingsError, flag_name

SUFFIX: Final = ".json"

_TENANT_PREFIX, _TENANT_DIGITS = "key-", 32
_TENANT_FOLDER: Final = re.compile(rf"{_TENANT_PREFIX}[0-9a-f]{{{_TENANT_DIGITS}}}")


class CalibrationStore:
    """Those that a request may name.

    Args:
        folder: where they are kept; None keeps them in memory only.
        held: what is there already.
        common: those of all tenants, beside those of this one.
    """

    def __init__(
        self,
        folder: Path | None = None,
        held: Mapping[str, Calibration] | None = None,
        common: CalibrationStore | None = None,
    ) -> None:
        self._folder, self._common = folder, common
        self._held = dict(held or {})
        self._reserved: set[str] = set()
        self._tenants: dict[str, CalibrationStore] = {}
        self._lock, self._disk = threading.Lock(), threading.Lock()

    @classmethod
    def read(cls, folder: Path | None) -> CalibrationStore:
        """Every ``*.json`` in the folder, and in those of tenants in it.

        Raises:
            SettingsError: the folder or a file in it cannot be read, or is no calibration.
        """
        if folder is None:
            return cls()
        store = cls(folder, _read_all(folder))
        for one in _listed(folder):
            if _TENANT_FOLDER.fullmatch(one.name) and one.is_dir():
                store._tenants[one.name] = cls(one, _read_all(one), store)
        return store

    def of(self, tenant: str) -> CalibrationStore:
        """What a tenant may name: the common ones, which it cannot change, and its own.

        Args:
            tenant: a digest in hexadecimal digits; empty for nobody: all in common.
        """
        if not tenant:
            return self
        place = f"{_TENANT_PREFIX}{tenant[:_TENANT_DIGITS]}"
        with self._lock:
            if place not in self._tenants:
                folder = None if self._folder is None else self._folder / place
                self._tenants[place] = CalibrationStore(folder, None, self)
            return self._tenants[place]

    def held(self) -> dict[str, Calibration]:
        """All of them by name, in order of the names."""
        common = {} if self._common is None else self._common.held()
        return dict(sorted((common | self._held).items()))

    def find(self, name: str) -> Calibration:
        """The one of this name. Raises ``CalibrationNotFound``."""
        found = self._held.get(name)
        if found is None and self._common is not None:
            return self._common.find(name)
        if found is None:
            raise CalibrationNotFound(f"There is no calibration {name!r} here.", "calibration")
        return found

    @contextmanager
    def reserved(self, name: str, *, overwrite: bool) -> Iterator[None]:
        """Nobody else takes the name, or the room for one more, while this lasts.

        Raises:
            CalibrationExists: there is one, which is not to be overwritten, or one is being fitted.
            CalibrationReadOnly: there is one, and it is of all tenants.
            TooManyCalibrations: there is no room.
        """
        with self._lock:
            self._check_free(name, overwrite)
            self._reserved.add(name)
        try:
            yield
        finally:
            self._reserved.discard(name)

    def keep(self, name: str, calibration: Calibration) -> None:
        """Keep it under a reserved name, in its file first.

        Waits for the disk: not to be called on the event loop.

        Raises:
            CalibrationNotStored: the file cannot be written.
        """
        with self._disk:
            if self._folder is not None:
                try:
                    if self._common is not None:
                        self._folder.mkdir(exist_ok=True)
                    write_calibration(self._folder / f"{name}{SUFFIX}", calibration)
                except OSError as error:
                    raise CalibrationNotStored(f"{self._folder}: {error.strerror}") from error
            self._held[name] = calibration

    def remove(self, name: str) -> None:
        """Forget it, its file first. Waits for the disk: not to be called on the event loop.

        Raises:
            CalibrationNotFound: there is none of this name.
            CalibrationReadOnly: it is of all tenants.
            CalibrationNotStored: the file cannot be removed.
        """
        with self._disk:
            if name not in self._held:
                self.find(name)
                raise _read_only(name)
            if self._folder is not None:
                try:
                    (self._folder / f"{name}{SUFFIX}").unlink(missing_ok=True)
                except OSError as error:
                    raise CalibrationNotStored(f"{self._folder}: {error.strerror}") from error
            del self._held[name]

    def _check_free(self, name: str, overwrite: bool) -> None:
        if name in self._reserved:
            raise CalibrationExists(f"A calibration {name!r} is being fitted.", "name")
        if name in self._held:
            if not overwrite:
                raise CalibrationExists(
                    f"There is a calibration {name!r} already; overwrite replaces it.", "name"
                )
            return
        if self._common is not None and name in self._common._held:
            raise _read_only(name)
        if len(self._held.keys() | self._reserved) >= MAX_CALIBRATIONS:
            raise TooManyCalibrations(
                f"There are {MAX_CALIBRATIONS} calibrations already; DELETE makes room.", "name"
            )


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


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _unfit(folder, f"cannot read it: {error.strerror}") from None


def _read_all(folder: Path) -> dict[str, Calibration]:
    paths = [one for one in _listed(folder) if one.suffix == SUFFIX]
    if len(paths) > MAX_CALIBRATIONS:
        raise _unfit(folder, f"it holds more than {MAX_CALIBRATIONS} calibrations")
    return {one.stem: _read(one) for one in paths}


def _read_only(name: str) -> CalibrationReadOnly:
    return CalibrationReadOnly(f"The calibration {name!r} is the operator's.", "name")


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
