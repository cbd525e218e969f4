"""``chainrule score`` and what should end neither the job nor the user's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.app.cli.scoring import answer_from, read_jsonl, run, write_jsonl
from tests.app.fake_engine import FakeEngine

GOOD = {"context": "it is", "candidates": [" yes"]}


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Whoever is asked, it answers."""
    engine = FakeEngine()
    answer_from(monkeypatch, engine)
    return engine


@pytest.mark.parametrize(
    "bad",
    [
        '{"id": ' + "1" * 5000 + "}",
        '{"id": 1e999}',
        '{"id": ' + "[" * 400 + "]" * 400 + ', "context": "a", "candidates": ["b"]}',
        json.dumps({**GOOD, "model": "another"}),
    ],
    ids=["digits", "infinite", "deep", "model"],
)
def test_one_bad_line_does_not_end_the_job(tmp_path: Path, bad: str) -> None:
    """It has its error, and the line behind it its result."""
    given = tmp_path / "in"
    given.write_text(f"{bad}\n{json.dumps(GOOD)}\n")
    run(given, "-o", tmp_path / "out", status=3)
    assert [one["line"] for one in read_jsonl(tmp_path / "out.errors.jsonl")] == [1]
    assert [one["line"] for one in read_jsonl(tmp_path / "out")] == [2]


def test_a_cell_with_too_long_a_number_is_its_records_error(tmp_path: Path) -> None:
    """As in JSONL."""
    given = tmp_path / "in.csv"
    given.write_text(f"context,candidates\na,[{'1' * 5000}]\n")
    run(given, "-o", tmp_path / "out", status=3)


@pytest.mark.parametrize("name", ["out", "out.errors.jsonl", "out.run.json", "out.run.json.new"])
def test_no_output_is_the_input(tmp_path: Path, name: str) -> None:
    """Also not one that the user did not name; nothing is lost."""
    given = write_jsonl(tmp_path / name, [GOOD])
    run(given, "-o", tmp_path / "out", "--overwrite", status=2)
    assert read_jsonl(given) == [GOOD]


@pytest.mark.parametrize("manifest", [b"[]", b"\xff\xfe"])
def test_a_manifest_of_something_else_is_a_refusal(
    tmp_path: Path, manifest: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    (tmp_path / "out.run.json").write_bytes(manifest)
    run(write_jsonl(tmp_path / "in", [GOOD]), "-o", tmp_path / "out", status=1)
    assert "a run that cannot be recognized" in capsys.readouterr().err
