"""What a calibration changes, as a table."""

from __future__ import annotations

from app.calibration.labelled import QUESTION_TYPES
from app.cli.tables import Cell, Page, number, percent
from app.schemas.calibration import Calibration, QuestionCalibration, TemperatureMap

HEADS = ["questions", ">lines", ">right", "map", ">nll", ">after", ">brier", ">after", ">ece"]
HEADS += [">after", ">set size", ">abstains"]


def show(page: Page, calibration: Calibration) -> None:
    """A row for each type of question, and what its numbers mean."""
    found = [(kind, getattr(calibration.questions, kind)) for kind in QUESTION_TYPES]
    page.table(HEADS, [_row(kind, one) for kind, one in found if one is not None])
    page.line()
    page.line("nll, brier and ece: before and after calibration, on questions held out; 0 is best")
    page.line(f"sets lack the right option at a rate of {calibration.error_rate:g} at most", "dim")


def _row(kind: str, one: QuestionCalibration) -> list[Cell]:
    pairs = [
        (getattr(one.before, name), getattr(one.after, name)) for name in ("nll", "brier", "ece")
    ]
    cells: list[Cell] = [kind, str(one.lines), percent(one.accuracy), _described(one)]
    for before, after in pairs:
        cells += [number(before), (number(after), "green" if after < before else "yellow")]
    return [*cells, number(one.set_size, 2), percent(one.abstained)]


def _described(one: QuestionCalibration) -> str:
    if isinstance(one.map, TemperatureMap):
        return f"temperature {one.map.temperature:.4f}"
    return f"isotonic, {len(one.map.points)} points"
