"""``chainrule calibrate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from app.calibration.store import parse_calibration
from app.client import Client
from app.schemas.bounds import MAX_BODY_BYTES, MAX_CALIBRATION_LINES
from app.schemas.calibration import FittedCalibration
from tests.app.cli.command_line import answer_locally, field_error, printed, rows
from tests.app.compat.decisions.decision_calls import chat_engine, labelled, predicate


@pytest.fixture(autouse=True)
def _law(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer_locally(monkeypatch, chat_engine(max_model_len=2_000))
    monkeypatch.chdir(tmp_path)


def write(lines: list[Any], name: str = "labelled.jsonl") -> str:
    """A file of these lines in the current folder."""
    Path(name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return name


def test_a_file_becomes_a_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    """A table of what it changes, the file of it, and a picture."""
    name = write(labelled())
    out = printed(capsys, "calibrate", name, "--local", "--plot", "reliability.png")
    table = rows(out)
    assert table[0][:4] == ["questions", "lines", "right", "map"]
    assert [row[:2] for row in table[1:3]] == [["predicate", "24"], ["choice", "24"]]
    assert "written: calibration.json\nwritten: reliability.png\n" in out
    found = parse_calibration(Path("calibration.json").read_bytes())
    assert (found.model, found.debias, found.error_rate) == ("org/toy", "none", 0.1)
    assert found.questions.predicate is not None and found.questions.score is None
    assert imread("reliability.png").shape == (660, 1080, 4)
    # Equal runs write equal files.
    printed(capsys, "calibrate", name, "--local", "-o", "again.json", "--plot", "again.png")
    assert Path("again.json").read_bytes() == Path("calibration.json").read_bytes()
    assert Path("again.png").read_bytes() == Path("reliability.png").read_bytes()


def test_flags_reach_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Method, rate and orders; --json prints what is in the file."""
    flags = ("--method", "isotonic", "--error-rate", "0.25", "--debias", "none", "--json")
    printed_json = printed(capsys, "calibrate", write(labelled()), "--local", *flags)
    found = json.loads(printed_json)
    assert found == json.loads(Path("calibration.json").read_text())
    assert found["error_rate"] == 0.25
    assert found["questions"]["choice"]["map"]["method"] == "isotonic"


def test_what_is_there_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is the model asked; --overwrite replaces it."""
    name = write(labelled())
    Path("calibration.json").write_text("mine")
    error = field_error(capsys, "calibrate", name, "--local", status=2)
    assert error == "--output: calibration.json is there already; --overwrite replaces it"
    assert Path("calibration.json").read_text() == "mine"
    printed(capsys, "calibrate", name, "--local", "--overwrite")
    parse_calibration(Path("calibration.json").read_bytes())
    error = field_error(capsys, "calibrate", name, "--local", "-o", "no/where.json", status=2)
    assert error == "--output: no is no folder that can be written to"


def test_what_the_server_has_not_kept_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the exit status as well; the file is written."""
    calibrate = Client.calibrate

    def not_kept(client: Client, body: dict[str, Any]) -> FittedCalibration:
        fitted = calibrate(client, {key: value for key, value in body.items() if key != "name"})
        return fitted.model_copy(update={"not_kept": "The disk is full."})

    monkeypatch.setattr(Client, "calibrate", not_kept)
    name = write(labelled())
    error = field_error(capsys, "calibrate", name, "--local", "--name", "mine", status=1)
    assert error == "--name: The disk is full."
    parse_calibration(Path("calibration.json").read_bytes())


@pytest.mark.parametrize("plot", ["here", "./here", "link"])
def test_the_picture_does_not_replace_the_calibration(
    capsys: pytest.CaptureFixture[str], plot: str
) -> None:
    """However the same file is spelled, and even where both may be overwritten."""
    Path("link").symlink_to("here")
    flags = ("--local", "-o", "here", "--plot", plot, "--overwrite")
    error = field_error(capsys, "calibrate", write(labelled()), *flags, status=2)
    assert error == f"--plot: {Path(plot)} is where the calibration goes"
    assert not Path("here").exists()


GOOD = labelled(1)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there is no labelled question"),
        ('{"input": 1\n', "line 1: it is not JSON"),
        ("\n\n[]\n", "line 3: it is not a JSON object"),
        ('{"input": "a", "input": "b"}', "line 1: input: "),
        (f"\n{json.dumps({**GOOD, 'answer': 'pink'})}", "line 2: answer: 'pink' is none of its"),
        (json.dumps({**GOOD, "question": {"type": "noul"}}), "line 1: question: "),
        (f"\n{json.dumps(GOOD)}" * 3, "lines: 3 of type choice are too few"),
        ("\n" + f"{json.dumps({**GOOD, 'input': 'a' * 3_000})}\n" * 20, "line 2: input: "),
        ("{}\n" * (MAX_CALIBRATION_LINES + 1), f"more than {MAX_CALIBRATION_LINES} labelled"),
        (" " * (MAX_BODY_BYTES + 1), f"more than {MAX_BODY_BYTES} bytes"),
    ],
    ids=range(10),
)
def test_a_bad_line_is_named_by_its_number(
    capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    """As the file has it, whoever finds it out; nothing is written."""
    Path("labelled.jsonl").write_text(content)
    assert message in field_error(capsys, "calibrate", "labelled.jsonl", "--local", status=2)
    assert not Path("calibration.json").exists()


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, as of every command."""
    assert "nowhere.jsonl" in field_error(capsys, "calibrate", "nowhere.jsonl", status=1)


def test_a_plot_without_matplotlib_is_refused_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line that says what to install, before anything is read."""
    monkeypatch.setattr("app.cli.extras.find_spec", lambda _name: None)
    error = field_error(capsys, "calibrate", "nowhere.jsonl", "--plot", "a.png", status=2)
    assert error == "--plot needs matplotlib: pip install 'chainrule[plot]'"


def test_a_server_without_keys_keeps_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Its refusal is told, and nothing is written."""
    name = write(labelled())
    error = field_error(capsys, "calibrate", name, "--local", "--name", "mine", status=1)
    assert "keeps no calibration" in error
    assert not Path("calibration.json").exists()


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``-`` reads it."""
    lines = [{"input": "", "question": predicate(), "answer": n % 2 == 0} for n in range(20)]
    with Path(write(lines)).open() as file:
        monkeypatch.setattr("sys.stdin", file)
        out = printed(capsys, "calibrate", "-", "--local")
    assert rows(out)[1][:2] == ["predicate", "20"]
