"""The picture of a run or a sweep, as PNG. Needs the ``plot`` extra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from app.cli.bench.report import Report
from app.cli.bench.sender import TIMEOUT, Sent

_SIZE: Final = (11.0, 4.5)
_SHOWN: Final = ("p50", "p95", "p99")


class NoPlot(Exception):
    """There is nothing to draw with. The message is one line."""


def new_figure() -> Any:
    """An empty picture.

    Raises:
        NoPlot: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPlot("a plot needs matplotlib: pip install 'chainrule[plot]'") from None
    return Figure(figsize=_SIZE, layout="constrained")


def draw(path: Path, runs: Sequence[tuple[Report, Sequence[Sent]]], title: str) -> None:
    """Save the picture: latencies on the left; on the right rates, or one run over its time.

    Args:
        path: of the PNG.
        runs: of ascending rates; each report with the requests that it counts.
        title: above all of it.

    Raises:
        NoPlot: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = new_figure()
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    _draw_distribution(left, runs)
    if len(runs) > 1:
        _draw_rates(right, [report for report, _ in runs])
    else:
        _draw_time(right, runs[0][1])
    figure.savefig(path, format="png", dpi=120)


def _draw_distribution(axes: Any, runs: Sequence[tuple[Report, Sequence[Sent]]]) -> None:
    shown: list[float] = []
    for report, sent in runs:
        values = sorted(1e3 * one.latency_s for one in sent if one.ok)
        shares = [(place + 1) / len(sent) for place in range(len(values))]
        late = [1e3 * one.latency_s for one in sent if one.outcome == TIMEOUT]
        # As long as anybody waited, no more was answered: the curve goes on as it is.
        ends = [(max(late), shares[-1] if shares else 0.0)] if late else []
        xs, ys = [*values, *(x for x, _ in ends)], [*shares, *(y for _, y in ends)]
        (line,) = axes.plot(xs, ys, drawstyle="steps-post", label=_label(report, values, late))
        for x, y in ends:
            axes.plot([x], [y], "x", color=line.get_color())
        shown += xs
    axes.set(xlabel="latency since due, ms", ylabel="share answered by then")
    _scale(axes.set_xscale, axes.xaxis, shown)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _label(report: Report, values: Sequence[float], late: Sequence[float]) -> str:
    words = [] if values else ["none answered"]
    words += [f"{len(late)} timed out (x)"] if late else []
    return f"{report.rate:g}/s" + (f": {', '.join(words)}" if words else "")


def _scale(set_scale: Any, axis: Any, values: Sequence[float]) -> None:
    """A log scale only where there are decades to show: within one, its labels are a crowd."""
    if values and min(values) > 0 and max(values) >= 10 * min(values):
        set_scale("log")
        axis.set_major_formatter(lambda value, _place: f"{value:g}")
        axis.set_minor_formatter(lambda _value, _place: "")


def _draw_rates(axes: Any, reports: Sequence[Report]) -> None:
    rates = [report.offered for report in reports]
    axes.plot(rates, rates, color="0.8", label="offered")
    axes.plot(rates, [report.achieved for report in reports], marker="o", label="answered")
    if all(report.goodput is not None for report in reports):
        axes.plot(rates, [report.goodput for report in reports], marker="o", label="in time")
    axes.set(xlabel="offered, requests/s", ylabel="requests/s")
    axes.grid(alpha=0.3)
    beside = axes.twinx()
    for grey, name in zip(("0.2", "0.4", "0.6"), _SHOWN, strict=True):
        values = [report.latency_ms.get(name, math.nan) for report in reports]
        beside.plot(rates, values, color=grey, linestyle=":", marker=".", label=name)
    beside.set(ylabel="latency, ms (dotted)", yscale="log")
    lines = [*axes.get_lines(), *beside.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], loc="upper left")


def _draw_time(axes: Any, sent: Sequence[Sent]) -> None:
    for label, wanted, colour in (("answered", True, "C0"), ("failed", False, "C3")):
        some = [one for one in sent if one.ok is wanted]
        if some:
            values = [1e3 * one.latency_s for one in some]
            axes.scatter([one.due_s for one in some], values, s=6, color=colour, label=label)
    axes.set(xlabel="due, s after the start", ylabel="latency, ms")
    _scale(axes.set_yscale, axes.yaxis, [1e3 * one.latency_s for one in sent])
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
