"""What an alert tells whom it wakes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.deploy.prometheus.files import FOLDER, rules
from tests.documentation import headings

ALERTS = rules("alert")
PAGE = FOLDER.parents[1] / "docs" / "monitoring.md"
_ROW = re.compile(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_happened_and_what_to_do(alert: dict[str, Any]) -> None:
    """In sentences, with a place in the docs."""
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert not notes["summary"].endswith(".") and notes["description"].endswith((".", "?"))
    path, _, anchor = notes["runbook_url"].partition("#")
    assert (PAGE.parents[1] / path) == PAGE
    assert anchor == alert["alert"].lower() and anchor in headings(PAGE, "###")


def test_the_docs_list_the_alerts() -> None:
    """Each once, in their order, with its severity and how long it has to last."""
    found = [match.groups() for match in _ROW.finditer(PAGE.read_text())]
    wanted = [
        (
            alert["alert"],
            alert["alert"].lower(),
            alert["labels"]["severity"],
            alert.get("for", "at once"),
        )
        for alert in ALERTS
    ]
    assert found == wanted


def test_no_alert_stands_twice() -> None:
    """Each has its own section."""
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
