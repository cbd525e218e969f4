"""The table of ``chainrule diagnose``, and the diagnosis in that of ``chainrule audit``."""

from __future__ import annotations

from app.cli.audit import show
from app.cli.diagnose.aggregate import diagnose_file
from app.cli.diagnose.report import LineDiagnosis, show_file, show_lines
from app.cli.tables import Page
from app.client import InvalidRequest
from app.schemas.audit_response import EXAMPLE_AUDIT, AuditResponse
from app.schemas.diagnosis import Diagnosis
from tests.app.cli.command_line import Terminal, rows
from tests.app.cli.diagnose.test_aggregate import explanation, line


def printed(*lines: LineDiagnosis) -> str:
    out = Terminal()
    page = Page(out)
    show_lines(page, list(lines))
    found = [one.found for one in lines if isinstance(one.found, Diagnosis)]
    show_file(page, diagnose_file(found, len(lines) - len(found)))
    page.write()
    return out.getvalue()


def test_wrong_lines_are_shown_and_the_others_counted() -> None:
    """With what explains each, and the verdict on all."""
    good = LineDiagnosis(1, {"id": "a"}, line("agree", unaffected=["mean"]))
    bad = LineDiagnosis(2, {"id": "b"}, line("explained", explanation("mean")))
    failed = LineDiagnosis(3, {}, InvalidRequest("it is no object"))
    text = printed(good, bad, failed)
    assert ["2", "b"] in [row[:2] for row in rows(text)]
    assert "it is no object" in text
    assert "and 1 line more" in text
    assert "mean explains every line" in text
    assert "mean: 1 line (words)" in text


def test_what_is_kept_of_a_line_gives_the_same_report() -> None:
    """Only the nearest of what does not fit is kept, and no reasons."""
    near = [explanation(name) for name in ("mean", "base_2", "negated")]
    none = line("none", untried=["truncated"]).model_copy(update={"closest": near})
    found = [
        LineDiagnosis(1, {}, none),
        LineDiagnosis(2, {}, line("explained", explanation("mean"))),
        LineDiagnosis(3, {}, line("agree", untried=["mean"])),
    ]
    short = [one.in_short() for one in found]
    assert printed(*short) == printed(*found)
    assert isinstance(short[0].found, Diagnosis)
    assert short[0].found.closest == near[:1]
    assert short[0].found.untried[0].reason == ""


def test_lines_that_are_all_right_are_shown() -> None:
    """Nothing is hidden where nothing is wrong."""
    text = printed(LineDiagnosis(1, {"id": "a"}, line("agree")))
    assert "they agree on every line" in text
    assert "a" in rows(text)[1]


def test_an_audit_shows_its_diagnosis() -> None:
    """Behind everything else, where something was reported."""
    out = Terminal()
    page = Page(out)
    found = line("explained", explanation("mean"), explanation("base_2"))
    show(page, AuditResponse.model_validate({**EXAMPLE_AUDIT, "diagnosis": found}))
    page.write()
    assert "the reported numbers" in out.getvalue()
    assert "base_2" in out.getvalue()
