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
    CalibrationReadOnly,
    TooManyCalibrations,
)
from app.schemas.bounds import MAX_CALIBRATION_BYTES, MAX_CALIBRATIONS
from app.schemas.calibration import Calibration
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


def add(
    store: CalibrationStore, name: str, one: Calibration = FITTED, *, overwrite: bool = False
) -> None:
    """Keep it, as a request does."""
    with store.reserved(name, overwrite=overwrite):
        store.keep(name, one)


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
    add(store, "mine", FITTED, overwrite=False)
    assert store.find("mine") == FITTED
    other = FITTED.model_copy(update={"model": "other"})
    with pytest.raises(CalibrationExists, match="'mine' already"):
        add(store, "mine", other, overwrite=False)
    add(store, "mine", other, overwrite=True)
    assert CalibrationStore.read(tmp_path).held() == {"mine": other}
    full = CalibrationStore(None, {str(place): FITTED for place in range(MAX_CALIBRATIONS)})
    with pytest.raises(TooManyCalibrations):
        add(full, "mine", FITTED, overwrite=False)
    add(full, "7", other, overwrite=True)
    assert len(full.held()) == MAX_CALIBRATIONS


def test_what_cannot_be_written_is_not_kept(tmp_path: Path) -> None:
    """The folder is gone: the name stays free, and no draft is left."""
    folder = tmp_path / "folder"
    folder.mkdir()
    store = CalibrationStore.read(folder)
    os.rmdir(folder)
    with pytest.raises(CalibrationNotStored):
        add(store, "mine", FITTED, overwrite=False)
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


def test_a_name_is_reserved_before_it_is_kept() -> None:
    """Nobody else takes it, or the last room; where nothing is kept it is free again."""
    store = CalibrationStore(None, {str(place): FITTED for place in range(MAX_CALIBRATIONS - 1)})
    with store.reserved("mine", overwrite=False):
        for overwrite in (False, True):
            with (
                pytest.raises(CalibrationExists, match="'mine' is being fitted"),
                store.reserved("mine", overwrite=overwrite),
            ):
                pass
        with pytest.raises(TooManyCalibrations), store.reserved("other", overwrite=False):
            pass
        assert "mine" not in store.held()
    add(store, "other")


def test_what_is_removed_makes_room(tmp_path: Path) -> None:
    """Its file goes, too, even one that somebody has taken away already."""
    store = CalibrationStore.read(tmp_path)
    add(store, "mine")
    add(store, "gone")
    os.unlink(tmp_path / "gone.json")
    store.remove("mine")
    store.remove("gone")
    assert store.held() == {}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CalibrationNotFound):
        store.remove("mine")
    full = CalibrationStore(None, {str(place): FITTED for place in range(MAX_CALIBRATIONS)})
    full.remove("7")
    add(full, "mine")


def test_what_cannot_be_removed_stays(tmp_path: Path) -> None:
    """Something else is at the place of its file."""
    store = CalibrationStore.read(tmp_path)
    add(store, "mine")
    os.unlink(tmp_path / "mine.json")
    (tmp_path / "mine.json").mkdir()
    with pytest.raises(CalibrationNotStored):
        store.remove("mine")
    assert store.find("mine") == FITTED


ONE, TWO = "1" * 64, "2" * 64


@pytest.mark.parametrize("in_memory", [True, False])
def test_tenants_have_names_of_their_own(tmp_path: Path, in_memory: bool) -> None:
    """What is common is for all and changed by none; after a start it is as before."""
    other = FITTED.model_copy(update={"model": "other"})
    write_calibration(tmp_path / "common.json", FITTED)
    folder = None if in_memory else tmp_path
    store = CalibrationStore(folder, {"common": FITTED})
    one, two = store.of(ONE), store.of(TWO)
    assert store.of("") is store
    add(one, "mine")
    add(two, "mine", other)
    for overwrite in (False, True):
        with pytest.raises(CalibrationReadOnly, match="'common' is the operator's"):
            add(one, "common", other, overwrite=overwrite)
    with pytest.raises(CalibrationReadOnly):
        one.remove("common")
    for found in [store] if in_memory else [store, CalibrationStore.read(tmp_path)]:
        assert found.held() == {"common": FITTED}
        assert found.of(ONE).held() == {"common": FITTED, "mine": FITTED}
        assert found.of(TWO).held() == {"common": FITTED, "mine": other}
        assert found.of("3" * 64).held() == {"common": FITTED}
    two.remove("mine")
    assert one.find("mine") == FITTED
    with pytest.raises(CalibrationNotFound):
        two.find("mine")


def test_a_tenants_file_that_is_no_calibration_ends_the_start(tmp_path: Path) -> None:
    """Like any other; a folder of another name is left alone."""
    add(CalibrationStore.read(tmp_path).of(ONE), "mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.json").write_text("{")
    (folder,) = (one for one in tmp_path.iterdir() if one.name != "notes")
    CalibrationStore.read(tmp_path)
    (folder / "mine.json").write_text("{")
    with pytest.raises(SettingsError, match=r"mine\.json: it is not JSON"):
        CalibrationStore.read(tmp_path)
