"""``chainrule score CONTEXT CANDIDATE ...``: candidates on the spot, as rows."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.main import main
from tests.app.calls import NO, YES, log
from tests.app.cli.command_line import answer_locally, field_error, printed, rows
from tests.app.fake_engine import FakeEngine


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_locally(monkeypatch, FakeEngine())


def test_each_candidate_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Best first, where a program reads."""
    out = printed(capsys, "score", "it is", NO, YES, "--local")
    first, second = map(json.loads, out.splitlines())
    assert (first["rank"], first["candidate"]) == (1, YES)
    assert (second["rank"], second["candidate"]) == (2, NO)
    assert first["logprob"] == log(0.5)
    assert list(first) == [
        *("rank", "candidate", "score", "logprob", "probability", "token_count", "mean_logprob"),
        "error",
    ]


def test_fields_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """In the order in which they are named, as CSV whose cells hold any text."""
    odd = ' "yes",\nno'
    flags = ("--local", "--rows", "csv", "--fields", "candidate,token_count,error")
    out = printed(capsys, "score", "it is", YES, odd, *flags)
    found = list(csv.reader(io.StringIO(out)))
    assert found[0] == ["candidate", "token_count", "error"]
    assert {row[0] for row in found[1:]} == {YES, odd}


def test_compact_answers_have_rows_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    """With what their columns have."""
    out = printed(capsys, "score", "it is", NO, YES, "--local", "--compact")
    first, second = map(json.loads, out.splitlines())
    assert (first["candidate"], first["logprob"]) == (YES, log(0.5))
    assert (second["candidate"], second["token_count"]) == (NO, None)


def test_notes_are_told_beside_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, where no program takes them for rows."""
    assert main(["score", "it is", YES, f"{YES} no", "--local"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "note: candidates.0 is the beginning of candidates.1" in shown.err


@pytest.mark.process
def test_rows_are_utf_8_wherever_they_go() -> None:
    """Whatever the terminal's own encoding is."""
    program = "from app.cli.score.rows import write_rows; write_rows('\\u00e9\\u65e5\\n')"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert run.stdout.decode() == "é日\n"


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """With what other texts have."""
    out = printed(capsys, "score", "it is", NO, YES, "--local", "--rows", "table")
    assert rows(out)[0] == ["rank", "candidate", "score", "probability", "tokens"]
    assert rows(out)[1][:3] == ["1", '"', 'yes"']
    assert out.splitlines()[-1].startswith("all other texts: ")


def test_flags_are_those_of_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    """As of a file."""
    out = printed(capsys, "score", "it is", YES, NO, "--local", "--normalization", "per_char")
    assert json.loads(out.splitlines()[0])["score"] == log(0.5) / len(YES)


def test_a_candidate_that_cannot_be_scored_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """Behind the others, which are scored."""
    flags = ("--local", "--fields", "candidate,rank,error")
    out = printed(capsys, "score", "it is", "", YES, *flags)
    first, last = map(json.loads, out.splitlines())
    assert (first["candidate"], first["error"]) == (YES, None)
    assert (last["candidate"], last["rank"]) == ("", None)
    assert last["error"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("it is", YES, "-o", "out"), "--output goes with a file"),
        (("it is", YES, "--input", "in"), "--input goes with a file"),
        (("it is", YES, "--split", "2"), "--split goes with a file"),
        (("it is", YES, "--fields", "rank,nothing"), "there is no 'nothing'"),
        ((), "name one file, or a context and at least one candidate"),
        (("-", "--rows", "csv", "-o", "out"), "--rows is of standard output"),
        (("-", "--fields", "rank,candidate", "-o", "out"), "--fields is of standard output"),
        (("it is", YES, "--context-column", "a"), "--context-column goes with a file"),
        (("it is", YES, "--fields", "line"), "there is no 'line'"),
        (("it is", YES, "--fields", "rank,rank"), "names a field twice"),
        (("it is", YES, "--overwrite"), "--overwrite goes with a file"),
        (("it is", YES, "--ray"), "--ray goes with a file"),
        (("-", "--rows", "csv", "--errors", "e"), "--errors goes with --output"),
    ],
)
def test_what_does_not_go_together(
    argv: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 2."""
    assert words in field_error(capsys, "score", *argv, "--local", status=2)


def test_a_context_alone_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    """It is said what is missing."""
    words = field_error(capsys, "score", "nothing here", "--local", status=1)
    assert "there is no file 'nothing here'; behind a context" in words


def test_a_file_is_named_by_itself_or_by_a_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the same end."""
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps({"context": "it is", "candidates": [YES]}))
    alone = printed(capsys, "score", str(file), "--local")
    assert printed(capsys, "score", "--input", str(file), "--local") == alone
    assert json.loads(alone)["results"][0]["logprob"] == log(0.5)


def test_no_server_is_said_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Rather than the system's words alone."""
    words = field_error(capsys, "score", "a", "b", "--url", "http://127.0.0.1:9", status=1)
    assert words.endswith("chainrule serve starts one, --local does without.")
