"""``chainrule diagnose``: files in, a verdict and an exit status out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.client import Client
from app.schemas.audit import AuditRequest
from app.schemas.audit_response import AuditResponse
from tests.app.calls import log
from tests.app.cli.command_line import answer_locally, field_error, printed
from tests.app.fake_engine import FakeEngine

ASKED = {"context": "it is", "candidates": [" yes", " no", "n't"]}
RIGHT = [log(0.5) + log(0.5), log(0.5) + log(0.25), log(0.25) + log(0.75)]


@pytest.fixture(autouse=True)
def _law(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_locally(monkeypatch, FakeEngine(numeric_error=(1e-6, 1e-7)))


def lines(tmp_path: Path, *records: Any) -> str:
    """A file of them."""
    path = tmp_path / "their.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in records))
    return str(path)


def record(factor: float, **more: Any) -> dict[str, Any]:
    return {**ASKED, "reported": {"totals": [one * factor for one in RIGHT]}, **more}


def diagnosed(capsys: pytest.CaptureFixture[str], *argv: str, status: int) -> list[dict[str, Any]]:
    """What comes out of a pipe."""
    out = printed(capsys, "diagnose", *argv, "--local", status=status)
    return [json.loads(one) for one in out.splitlines()]


def test_numbers_that_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0; a line for each record, with its id, and one for the file."""
    found = diagnosed(capsys, lines(tmp_path, record(1, id="a"), record(1)), status=0)
    assert [one.get("line") for one in found] == [1, 2, None]
    assert found[0]["id"] == "a"
    assert found[0]["diagnosis"]["verdict"] == "agree"
    assert found[2]["file"]["verdict"] == "agree"


def test_a_file_waits_for_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests are bulk unless a flag or the line says otherwise."""
    asked: list[str] = []
    audit = Client.audit

    def seen(self: Client, request: AuditRequest) -> AuditResponse:
        asked.append(request.priority)
        return audit(self, request)

    monkeypatch.setattr(Client, "audit", seen)
    name = lines(tmp_path, record(1), record(1, priority="interactive"))
    diagnosed(capsys, name, "--concurrency", "1", status=0)
    diagnosed(capsys, name, "--concurrency", "1", "--priority", "interactive", status=0)
    assert asked == ["bulk", *["interactive"] * 3]


def test_a_mistake_in_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 3, and its name."""
    name = lines(tmp_path, record(-1), record(-1))
    *_, last = diagnosed(capsys, name, status=3)
    assert last["file"]["explanations"][0]["mistakes"] == ["negated"]
    assert last["file"]["lines"] == 2


def test_lines_that_differ_in_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 4: nothing explains both."""
    *_, last = diagnosed(capsys, lines(tmp_path, record(-1), record(1.2345)), status=4)
    assert last["file"]["verdict"] == "none"


def test_a_line_that_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1; the others are diagnosed, and the verdict is theirs."""
    bad = {**ASKED, "reported": {"totals": [-1.0]}}
    name = lines(tmp_path, record(1), bad, ASKED, {"context": 5}, "no object")
    found = diagnosed(capsys, name, status=1)
    assert found[1]["error"]["param"] == "reported.totals"
    assert found[2]["error"]["param"] == "reported"
    assert found[3]["error"]["param"] == "context"
    assert "error" in found[4]
    assert found[5]["file"] == {
        "verdict": "agree",
        "summary": "they agree on every line",
        "lines": 1,
        "failed": 4,
        "agreeing": 1,
    }


def test_flags_stand_for_what_a_line_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line's own word wins."""
    name = lines(tmp_path, record(1), record(1, boundary="joint"))
    found = diagnosed(capsys, name, "--boundary", "separate", status=4)
    assert [one["diagnosis"]["verdict"] for one in found[:2]] == ["explained", "agree"]


def test_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error; nothing is loaded for it."""
    missing = str(tmp_path / "missing.jsonl")
    assert "missing.jsonl" in field_error(capsys, "diagnose", missing, "--local", status=1)


def test_an_empty_file_has_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1: nothing was diagnosed."""
    (last,) = diagnosed(capsys, lines(tmp_path), status=1)
    assert last["file"]["lines"] == 0
