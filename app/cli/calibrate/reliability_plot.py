"""A picture of how far probabilities are from how often they come true."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from matplotlib.figure import Figure

from app.calibration.labelled import QUESTION_TYPES
from app.schemas.calibration import (
    Calibration,
    QuestionCalibration,
    QuestionCalibrations,
    ReliabilityBin,
)


def write_plot(path: Path, calibration: Calibration) -> None:
    """Write the picture as PNG, whatever the file is called.

    For each type of question, over the probability of the most probable option: how often it is
    right, before and after, and below how many decisions have that probability.

    Raises:
        OSError: the file cannot be written.
    """
    fitted = _fitted(calibration.questions)
    figure = Figure(figsize=(4.5 * len(fitted), 5.5), dpi=120, layout="constrained")
    axes = figure.subplots(2, len(fitted), squeeze=False, height_ratios=(3, 1), sharex=True)
    for column, (kind, one) in enumerate(fitted):
        _draw_curves(axes[0][column], f"{kind} ({one.lines} questions)", one)
        _draw_counts(axes[1][column], one)
    model = shorten(calibration.model, 48, placeholder="...")
    title = f"{model}\ndebias {calibration.debias}, on questions held out"
    figure.suptitle(title, fontsize="medium")
    # What wrote it is left out: equal calibrations give equal files.
    figure.savefig(path, format="png", metadata={"Software": None})


def _fitted(questions: QuestionCalibrations) -> list[tuple[str, QuestionCalibration]]:
    found = [(kind, getattr(questions, kind)) for kind in QUESTION_TYPES]
    return [(kind, one) for kind, one in found if one is not None]


def _draw_curves(axis: Any, title: str, one: QuestionCalibration) -> None:
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="perfect")
    for name, bins, ece, style in (
        ("before", one.reliability_before, one.before.ece, "s--"),
        (f"after, {one.map.method}", one.reliability_after, one.after.ece, "o-"),
    ):
        label = f"{name} (ECE {ece:.3f})"
        axis.plot([b.confidence for b in bins], [b.accuracy for b in bins], style, label=label)
    axis.set(title=title, xlim=(0, 1), ylim=(0, 1), ylabel="how often it is right")
    axis.legend(loc="upper left", fontsize="small")


def _draw_counts(axis: Any, one: QuestionCalibration) -> None:
    width = 0.02
    for bins, shift in ((one.reliability_before, -width / 2), (one.reliability_after, width / 2)):
        axis.bar(_shifted(bins, shift), [b.count for b in bins], width=width)
    axis.set(xlabel="probability of the most probable option", ylabel="questions")


def _shifted(bins: Sequence[ReliabilityBin], shift: float) -> list[float]:
    return [one.confidence + shift for one in bins]
