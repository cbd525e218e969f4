"""``chainrule audit``."""

from __future__ import annotations

import json

import httpx
import pytest

from app.cli.audit import show
from app.cli.tables import Page
from app.schemas.audit_response import EXAMPLE_AUDIT, AuditResponse
from tests.app.cli.command_line import Terminal, answer_locally, answer_with, printed, rows
from tests.app.fake_engine import FakeEngine


@pytest.fixture(autouse=True)
def _law(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_locally(monkeypatch, FakeEngine())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def test_every_part_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Rankings, joins, tokens, the pair and searches."""
    out = printed(capsys, "audit", "it is", " no", " yes", "--local")
    table = rows(out)
    assert table[0][:3] == ["candidate", "logprob", "rank"]
    assert table[1][:4] == ['"', 'no"', "-1.3863", "2"]
    assert table[2][:4] == ['"', 'yes"', "-0.6931", "1"]
    assert '\ntokens of " yes"\n' in out
    assert "#1 against #0" in out
    assert {"greedy", "beam", "exact"} <= {row[0] for row in table if row}
    head = next(row for row in table if row[1:3] == ["own", "start"])
    assert head[-3:] == ["joint", "separate", "marginal"]


def test_json_is_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object with every candidate."""
    answer = json.loads(printed(capsys, "audit", "it is", " no", "--local", "--json"))
    assert answer["object"] == "audit"
    assert len(answer["candidates"]) == 1


def test_a_server_is_sent_the_candidates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Candidates follow the context; pairs are JSON."""
    bodies = answer_with(monkeypatch, lambda _request: httpx.Response(200, json=EXAMPLE_AUDIT))
    printed(capsys, "audit", "it is", " no", " yes", "--pairs", "[[0, 1]]", "--append-eos")
    assert bodies == [
        {
            "context": "it is",
            "candidates": [" no", " yes"],
            "pairs": [[0, 1]],
            "append_eos": True,
        }
    ]


def shown(**changes: object) -> str:
    """The lines of the documented example with these changes, on a terminal."""
    out = Terminal()
    page = Page(out)
    show(page, AuditResponse.model_validate({**EXAMPLE_AUDIT, **changes}))
    page.write()
    return out.getvalue()


def test_a_merge_is_coloured() -> None:
    """A candidate that changes the context's own tokens stands out."""
    (one,) = EXAMPLE_AUDIT["candidates"]
    assert '\x1b[33m" Paris"' not in shown()
    merged = {**one, "join": {**one["join"], "merged": True}}
    assert '\x1b[33m" Paris"' in shown(candidates=[merged])


def test_a_candidate_that_failed_shows_why() -> None:
    """Its row has the error in place of numbers."""
    error = {"message": "it is empty", "type": "invalid_request_error"}
    failed = {
        **EXAMPLE_AUDIT["candidates"][0],
        "error": error,
        "ranking": None,
        "training": None,
        "tokens": [],
    }
    assert "\x1b[31mit is empty\x1b[0m" in shown(candidates=[failed])
