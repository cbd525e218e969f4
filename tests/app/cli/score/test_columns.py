"""``chainrule score`` over files whose columns have names of their own, in every format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.app.calls import NO, YES, log
from tests.app.cli.command_line import Terminal, field_error, printed
from tests.app.cli.scoring import answer_from, read_jsonl, run, write_jsonl
from tests.app.fake_engine import FakeEngine

RECORDS: list[dict[str, Any]] = [
    {"id": "x", "question": "it is", "good": YES, "bad": NO, "label": "?"},
    {"id": "y", "question": "it is", "good": NO, "bad": "", "label": "!"},
]
NAMED = ("--context-column", "question", "--candidate-columns", "good, bad")


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Whoever is asked, it answers."""
    engine = FakeEngine()
    answer_from(monkeypatch, engine)
    return engine


def write_csv(path: Path, records: list[dict[str, Any]]) -> Path:
    """A file of texts, a row each."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
    return path


def write_parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    """A file of the types that the values have."""
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


FORMATS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("kind", FORMATS)
def test_columns_are_named(tmp_path: Path, kind: str) -> None:
    """What holds the candidates, one in each; an empty one is none, and nothing else is read."""
    given = FORMATS[kind](tmp_path / f"in.{kind}", RECORDS)
    run(given, "-o", tmp_path / "out", *NAMED)
    first, second = read_jsonl(tmp_path / "out")
    assert (first["id"], second["id"]) == ("x", "y")
    assert [one["logprob"] for one in first["results"]] == [log(0.5), log(0.25)]
    assert [one["logprob"] for one in second["results"]] == [log(0.25)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_may_hold_a_list(tmp_path: Path, kind: str) -> None:
    """All of its entries are candidates."""
    records = [{"question": "it is", "choices": [YES, NO], "answer": 1}]
    given = FORMATS[kind](tmp_path / f"in.{kind}", records)
    run(given, "-o", tmp_path / "out", "--context-column", "question", "--candidate-columns",
        "choices")  # fmt: skip
    (only,) = read_jsonl(tmp_path / "out")
    assert [one["logprob"] for one in only["results"]] == [log(0.5), log(0.25)]


def test_one_name_alone(tmp_path: Path) -> None:
    """The other part has the name that is known, in CSV as a JSON list, too."""
    records = [{"question": "it is", "candidates": json.dumps([YES, NO])}]
    given = write_csv(tmp_path / "in.csv", records)
    run(given, "-o", tmp_path / "out", "--context-column", "question")
    (only,) = read_jsonl(tmp_path / "out")
    assert len(only["results"]) == 2


@pytest.mark.parametrize("kind", FORMATS)
def test_a_column_that_is_not_there(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a table it is told at once; of lines, of each that lacks it."""
    given = FORMATS[kind](tmp_path / f"in.{kind}", RECORDS)
    argv = ("score", str(given), "-o", str(tmp_path / "out"), "--context-column", "query")
    if kind == "jsonl":
        run(*argv[1:], *NAMED[2:], status=3)
        errors = read_jsonl(tmp_path / "out.errors.jsonl")
        assert [one["error"]["param"] for one in errors] == ["context", "context"]
    else:
        assert "has no column query" in field_error(capsys, *argv, *NAMED[2:], status=2)


def test_a_candidate_that_is_no_text(tmp_path: Path) -> None:
    """Is its record's error, by the column's name."""
    given = write_jsonl(tmp_path / "in", [{**RECORDS[0], "bad": 7}, RECORDS[0]])
    run(given, "-o", tmp_path / "out", *NAMED, status=3)
    (error,) = read_jsonl(tmp_path / "out.errors.jsonl")
    assert error["error"]["message"] == "bad: it is neither a text nor a list"


def test_other_columns_are_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What lies there is not gone on with."""
    given = write_jsonl(tmp_path / "in", RECORDS)
    out = ("-o", str(tmp_path / "out"))
    run(given, *out, *NAMED)
    run(given, *out, *NAMED)
    capsys.readouterr()
    other = ("--context-column", "question", "--candidate-columns", "bad")
    assert "columns differ" in field_error(capsys, "score", str(given), *out, *other, status=1)


def test_columns_that_nobody_reads_may_be_called_anything(tmp_path: Path) -> None:
    """Alike, or nothing, as spreadsheets write them; those that are read may not."""
    given = tmp_path / "in.csv"
    given.write_text("question,good,,,bad\nit is, yes,1,2, no\n")
    run(given, "-o", tmp_path / "out", *NAMED)
    assert len(read_jsonl(tmp_path / "out")[0]["results"]) == 2
    given.write_text("question,good,good,bad\nit is, yes,1, no\n")
    run(given, "-o", tmp_path / "other", *NAMED, status=2)


def test_a_list_in_a_csv_column_of_its_own_is_a_text(tmp_path: Path) -> None:
    """As the documentation says; one called candidates is a list."""
    given = write_csv(tmp_path / "in.csv", [{"question": "it is", "good": '[" yes"]', "bad": NO}])
    run(given, "-o", tmp_path / "out", *NAMED)
    assert len(read_jsonl(tmp_path / "out")[0]["results"]) == 2


def test_a_csv_without_names_says_that_there_are_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside those that are known."""
    given = write_csv(tmp_path / "in.csv", RECORDS)
    assert "--context-column" in field_error(capsys, "score", str(given), status=2)


def test_rows_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CSV in, CSV out: one head, the best first in each record, in the fields that were chosen."""
    given = write_csv(tmp_path / "in.csv", RECORDS)
    fields = ("--rows", "csv", "--fields", "id,rank,candidate,logprob")
    out = printed(capsys, "score", str(given), *NAMED, *fields)
    assert list(csv.reader(io.StringIO(out))) == [
        ["id", "rank", "candidate", "logprob"],
        ["x", "1", YES, str(log(0.5))],
        ["x", "2", NO, str(log(0.25))],
        ["y", "1", NO, str(log(0.25))],
    ]


def test_rows_of_a_file_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--fields`` alone is enough; what has no name has none."""
    given = write_jsonl(tmp_path / "in", [{"context": "it is", "candidates": [[5], [6]]}])
    out = printed(capsys, "score", str(given), "--fields", "line,id,candidate")
    found = [json.loads(line) for line in out.splitlines()]
    assert sorted(found, key=lambda one: str(one["candidate"])) == [
        {"line": 1, "id": None, "candidate": text} for text in ("[5]", "[6]")
    ]


def test_a_terminal_gets_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each record, under its line and name; an error stands among them."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    given = write_jsonl(
        tmp_path / "in", [{"id": "x", "context": "it is", "candidates": [YES, NO]}, {"id": 2}]
    )
    run(given, status=3)
    shown = terminal.getvalue()
    assert 'line 1  "x"' in shown
    assert '" yes"' in shown
    assert "all other texts" in shown
    assert "line 2" not in shown
