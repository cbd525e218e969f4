"""What ``chainrule diagnose`` prints: a table on a terminal, lines of JSON elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from app.audit.wording import count_of
from app.cli.diagnose.aggregate import FileDiagnosis
from app.cli.tables import Cell, Page
from app.client import ClientError
from app.schemas.diagnosis import Diagnosis, Explanation, Verdict

STYLES: Final[dict[Verdict, str]] = {
    "agree": "green",
    "explained": "yellow",
    "undetermined": "yellow",
    "none": "red",
}

ROWS: Final = 40
"""Lines that a table has at most."""


@dataclass(frozen=True, slots=True)
class LineDiagnosis:
    """What became of a line.

    Attributes:
        line: its number, from 1.
        name: its id, in a dict of one entry; empty where it has none.
        found: its diagnosis, or why there is none.
    """

    line: int
    name: dict[str, Any]
    found: Diagnosis | ClientError

    def in_short(self) -> LineDiagnosis:
        """What the table and the verdict on the file are made of, without the rest."""
        if isinstance(self.found, ClientError):
            return self
        kept = {
            "summary": "",
            "closest": self.found.closest[:1],
            "untried": [one.model_copy(update={"reason": ""}) for one in self.found.untried],
        }
        return replace(self, found=self.found.model_copy(update=kept))

    def as_json(self) -> str:
        """One line of JSON, without the line's end."""
        head = {"line": self.line, **self.name}
        if isinstance(self.found, ClientError):
            error = {"message": self.found.message, "param": self.found.param}
            return json.dumps({**head, "error": error})
        return json.dumps({**head, "diagnosis": json.loads(self.found.model_dump_json())})


def show_lines(page: Page, lines: list[LineDiagnosis]) -> None:
    """The lines that are wrong first, so far as there is room."""
    wrong = [one for one in lines if not _is_right(one)]
    shown = sorted((wrong or lines)[:ROWS], key=lambda one: one.line)
    heads = [
        ">line",
        "id",
        "verdict",
        "explanation",
        ">estimate",
        ">difference",
        ">tolerance",
    ]
    page.table(heads, [_row(one) for one in shown])
    left = len(lines) - len(shown)
    if left:
        page.line(f"and {count_of(left, 'line')} more", "dim")


def show_explanations(page: Page, diagnosis: Diagnosis) -> None:
    """One diagnosis: what fits, or what comes nearest."""
    page.line(diagnosis.summary, STYLES[diagnosis.verdict])
    found = diagnosis.explanations or diagnosis.closest
    right = [] if diagnosis.as_reported is None else [diagnosis.as_reported]
    heads = ["mistake", "what was done", ">estimate", ">difference", ">tolerance"]
    page.table(heads, [_explanation(one) for one in (*found, *right)])


def show_file(page: Page, found: FileDiagnosis) -> None:
    """The verdict on all lines."""
    for one in found.explanations or found.partial:
        span = one.estimate_range
        between = "" if span is None else f", between {span[0]:.6g} and {span[1]:.6g}"
        names = " and ".join(one.mistakes)
        page.line(f"{names}: {count_of(one.lines, 'line')}{between} ({one.about})")
    page.line(found.summary, STYLES[found.verdict])


def _is_right(one: LineDiagnosis) -> bool:
    return isinstance(one.found, Diagnosis) and one.found.verdict == "agree"


def _row(one: LineDiagnosis) -> list[Cell]:
    name = str(one.name.get("id", ""))
    if isinstance(one.found, ClientError):
        return [str(one.line), name, ("failed", "red"), one.found.message, "", "", ""]
    best = next(iter(one.found.explanations or one.found.closest), None)
    if best is None or one.found.verdict == "agree":
        best = one.found.as_reported
    cells: list[Cell] = [str(one.line), name, (one.found.verdict, STYLES[one.found.verdict])]
    if best is None:
        return [*cells, "", "", "", ""]
    names = " and ".join(best.mistakes)
    return [*cells, names if best.fits else f"nearest: {names}", *_numbers(best)]


def _explanation(one: Explanation) -> list[Cell]:
    names = " and ".join(one.mistakes) or "none"
    return [(names, "bold green" if one.fits else ""), one.about, *_numbers(one)]


def _numbers(one: Explanation) -> list[Cell]:
    estimate = "" if one.estimate is None else f"{one.estimate:.6g}"
    return [estimate, f"{one.largest_difference:.3g}", f"{one.tolerance:.2g}"]
