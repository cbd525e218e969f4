"""Calibrations by name: files that are read, refused and written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

from app.calibration.store import CalibrationStore, parse_calibration, write_calibration
from app.errors.table import (
    CalibrationExists,
    CalibrationNotFound,
    CalibrationNotStored,
    TooManyCalibrations,
)
from app.schemas.bounds import MAX_CALIBRATION_BYTES, MAX_CALIBRATIONS
from app.settings import SettingsError
from tests.app.calibration.labelled_decisions import calibration, drawn, skewed

FITTED = calibration(drawn(1, 60) + skewed(1, 400))


def changed(**paths: Any) -> str:
    """Its file with other values; a path has ``__`` between its parts, None takes a field out."""
    body = FITTED.model_dump(mode="json", exclude_none=True)
    for path, value in paths.items():
        *folders, last = path.split("__")
        inner = body
        for folder in folders:
            inner = inner[folder]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    return json.dumps(body)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """To the bit, with both kinds of map."""
    path = tmp_path / "mine.json"
    write_calibration(path, FITTED)
    assert parse_calibration(path.read_bytes()) == FITTED
    assert [one.name for one in tmp_path.iterdir()] == ["mine.json"]
    assert CalibrationStore.read(tmp_path).held() == {"mine": FITTED}


MAP = "questions__predicate__map"
BAD = {
    "{": "it is not JSON",
    "[]": "request body",
    '{"object": "calibration", "object": "calibration"}': "stands twice",
    changed(fingerprint=None): "fingerprint: this field is required",
    changed(format_version=2): "format_version",
    changed(more=1): "more: there is no such field",
    changed(error_rate=1.5): "error_rate",
    changed(debias="some"): "debias",
    changed(questions__choice__threshold=-0.1): "questions.choice.threshold",
    changed(questions__choice__map={"method": "guess"}): "questions.choice.map",
    changed(**{f"{MAP}__points": [[0.5, 0.5], [0.4, 0.6]]}): "its points do not lie on a curve",
    changed(**{f"{MAP}__points": [[0.1, 0.5], [0.4, 0.3]]}): "its points do not lie on a curve",
    changed(**{f"{MAP}__points": [[0.1, 0.0]]}): "questions.predicate.map",
    changed(**{f"{MAP}__points": []}): "questions.predicate.map",
    " " * (MAX_CALIBRATION_BYTES + 1): f"it is longer than {MAX_CALIBRATION_BYTES} bytes",
}


@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_a_file_that_is_no_calibration_ends_the_start(tmp_path: Path, content: str) -> None:
    """In one line, with the setting, the file and what is wrong with it."""
    (tmp_path / "good.json").write_text(changed())
    (tmp_path / "wrong.json").write_text(content)
    with pytest.raises(SettingsError) as refused:
        CalibrationStore.read(tmp_path)
    message = str(refused.value)
    assert message.startswith(f"CHAINRULE_CALIBRATIONS (--calibrations): {tmp_path}/wrong.json: ")
    assert BAD[content] in message
    assert "\n" not in message


def test_names_and_folders_that_cannot_be_used(tmp_path: Path) -> None:
    """A name that no request could give; a folder that is not there; one with too many."""
    (tmp_path / "two words.json").write_text(changed())
    with pytest.raises(SettingsError, match=r"two words\.json: a calibration is called by letters"):
        CalibrationStore.read(tmp_path)
    (tmp_path / "two words.json").rename(tmp_path / "mine\n.json")
    with pytest.raises(SettingsError, match="a calibration is called by letters"):
        CalibrationStore.read(tmp_path)
    with pytest.raises(SettingsError, match="nowhere: cannot read it: No such file"):
        CalibrationStore.read(tmp_path / "nowhere")
    many = tmp_path / "many"
    many.mkdir()
    for place in range(MAX_CALIBRATIONS + 1):
        (many / f"{place}.json").touch()
    with pytest.raises(SettingsError, match="more than 256 calibrations"):
        CalibrationStore.read(many)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Only ``*.json`` is read, and no folder need be there."""
    (tmp_path / "README.md").write_text("notes")
    assert CalibrationStore.read(tmp_path).held() == {}
    assert CalibrationStore.read(None).held() == {}


def test_adding_needs_a_free_name_and_room(tmp_path: Path) -> None:
    """A name changes its meaning only where that is asked for."""
    store = CalibrationStore.read(tmp_path)
    with pytest.raises(CalibrationNotFound, match="no calibration 'mine' here"):
        store.find("mine")
    store.add("mine", FITTED, overwrite=False)
    assert store.find("mine") == FITTED
    other = FITTED.model_copy(update={"model": "other"})
    with pytest.raises(CalibrationExists, match="'mine' already"):
        store.add("mine", other, overwrite=False)
    store.add("mine", other, overwrite=True)
    assert CalibrationStore.read(tmp_path).held() == {"mine": other}
    full = CalibrationStore(None, {str(place): FITTED for place in range(MAX_CALIBRATIONS)})
    with pytest.raises(TooManyCalibrations):
        full.add("mine", FITTED, overwrite=False)
    full.add("7", other, overwrite=True)
    assert len(full.held()) == MAX_CALIBRATIONS


def test_what_cannot_be_written_is_not_kept(tmp_path: Path) -> None:
    """The folder is gone: the name stays free, and no draft is left."""
    folder = tmp_path / "folder"
    folder.mkdir()
    store = CalibrationStore.read(folder)
    os.rmdir(folder)
    with pytest.raises(CalibrationNotStored):
        store.add("mine", FITTED, overwrite=False)
    assert store.held() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_utf_8_whatever_the_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's name may hold any characters, and a locale may know few of them."""

    def in_ascii(mode: str = "w+b", **options: Any) -> Any:
        return NamedTemporaryFile(mode, encoding=None if "b" in mode else "ascii", **options)

    monkeypatch.setattr("app.calibration.store.NamedTemporaryFile", in_ascii)
    named = FITTED.model_copy(update={"model": "模型/ñ"})
    path = tmp_path / "mine.json"
    write_calibration(path, named)
    assert parse_calibration(path.read_bytes()) == named


@pytest.mark.parametrize("failure", [OSError("full"), ValueError("odd"), KeyboardInterrupt()])
def test_a_draft_that_fails_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """Whatever it fails with."""

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(type(failure)):
        write_calibration(tmp_path / "mine.json", FITTED)
    assert list(tmp_path.iterdir()) == []
