"""The notebook of the documentation: every cell runs, and shows what is shown there."""

from __future__ import annotations

import re
from typing import Any

import nbformat
import pytest

from tests.end_to_end.live_server import LiveServer
from tests.end_to_end.notebook import FILE, run
from tests.end_to_end.test_documentation import check_alike_text

COST = re.compile(r"fingerprint \w+; \d+ tokens computed, \d+ cached")
"""Differs between machines, and with what the server was asked before."""
UNSTABLE = re.compile(r"± [\de.-]+|width:[\d.]+%|\d+%|rgba\([^)]*\)")
"""Estimates of errors, and what is rounded too coarsely to be compared."""


@pytest.fixture(scope="module")
def shown() -> list[Any]:
    """The cells of code as they are committed."""
    return code(nbformat.read(FILE, as_version=4))


@pytest.fixture(scope="module")
def found(real_server: LiveServer) -> list[Any]:
    """The same, run."""
    return code(run(real_server.url))


def code(notebook: Any) -> list[Any]:
    """The cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_shows_what_is_shown(shown: list[Any], found: list[Any]) -> None:
    """Texts and HTML alike, pictures where there are pictures."""
    assert [cell.source for cell in found] == [cell.source for cell in shown]
    for got, cell in zip(found, shown, strict=True):
        assert [set(one.data) for one in got.outputs] == [set(one.data) for one in cell.outputs]
        for one, other in zip(got.outputs, cell.outputs, strict=True):
            for kind in {"text/plain", "text/html"} & set(one.data):
                check_alike_text(*(stable(each.data[kind]) for each in (one, other)))


def test_it_shows_all_kinds_of_things(shown: list[Any]) -> None:
    """Answers, tables and pictures; nothing that a reader's machine would refuse to show."""
    kinds = [kind for cell in shown for output in cell.outputs for kind in output.data]
    assert {"text/html", "image/png"} <= set(kinds)
    html = "".join(output.data.get("text/html", "") for cell in shown for output in cell.outputs)
    for name in ("United", "search error", "Entropy", "times as probable"):
        assert name in html
    assert "<script" not in html


def stable(text: str) -> str:
    """Without what differs from run to run."""
    return UNSTABLE.sub("", COST.sub("", text))
