"""`python -m benchmarks.plot_load LOAD.json PICTURE.png` draws what `chainrule bench --save` wrote.

Latencies on the left; on the right, of a sweep, rates with the percentiles of latency.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.cli.bench.report import SHARES

Run = dict[str, Any]
"""A report as ``--save`` writes it."""

DOTTED = ("p50", "p95", "p99")


def draw(runs: list[Run], title: str) -> Figure:
    """The picture of runs of ascending rates."""
    figure = Figure(figsize=(11.0, 4.5), layout="constrained")
    figure.suptitle(title)
    left, *right = figure.subplots(1, min(2, len(runs)), squeeze=False)[0]
    _draw_latencies(left, runs)
    for axes in right:
        _draw_rates(axes, runs)
    return figure


def _draw_latencies(axes: Axes, runs: list[Run]) -> None:
    for run in runs:
        # Timeouts are among the latencies: they have waited at least so long.
        count = sum(n for name, n in run["outcomes"].items() if name[0] == "2" or name == "timeout")
        shares = [share * count / run["sent"] for share in SHARES.values()]
        found = [run["latency_ms"].get(name) for name in SHARES]
        label = f"{run['rate']:g}/s" + ("" if count else ": none answered")
        axes.plot(found if count else [], shares if count else [], marker=".", label=label)
    axes.set(xlabel="latency since due, ms", ylabel="share ended by then", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_rates(axes: Axes, runs: list[Run]) -> None:
    offered = [run["offered"] for run in runs]
    axes.plot(offered, offered, color="0.8", label="offered")
    axes.plot(offered, [run["achieved"] for run in runs], marker="o", label="answered")
    if all(run["goodput"] is not None for run in runs):
        axes.plot(offered, [run["goodput"] for run in runs], marker="o", label="in time")
    axes.set(xlabel="offered, requests/s", ylabel="requests/s")
    axes.grid(alpha=0.3)
    beside = axes.twinx()
    for grey, name in zip(("0.2", "0.4", "0.6"), DOTTED, strict=True):
        values = [run["latency_ms"].get(name, float("nan")) for run in runs]
        beside.plot(offered, values, color=grey, linestyle=":", marker=".", label=name)
    beside.set(ylabel="latency, ms (dotted)", yscale="log")
    axes.legend(handles=[*axes.get_lines(), *beside.get_lines()], loc="upper left")


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot_load", description=__doc__)
    parser.add_argument("load", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    saved = json.loads(given.load.read_text("utf-8"))
    figure = draw(saved["runs"], f"{saved['load']['shape']} at {saved['load']['url']}")
    figure.savefig(given.picture, format="png", dpi=120)


if __name__ == "__main__":
    main()
