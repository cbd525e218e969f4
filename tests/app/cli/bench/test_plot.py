"""Plots are PNG files, of runs of every kind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.cli.bench.load import Load
from app.cli.bench.plot import NoPlot, draw, new_figure
from app.cli.bench.report import measure
from app.cli.bench.sender import Record, Sent


def run(rate: float, *outcomes: str) -> tuple[object, list[Sent]]:
    """A run with these outcomes."""
    sent = [
        Sent(0.1 * place, 0.1 * place, 0.1 * place + 0.05, 0.0, False, outcome)
        for place, outcome in enumerate(outcomes)
    ]
    return measure(Load(url="http://far/", rate=rate), Record(sent), 60.0), sent


@pytest.mark.parametrize(
    "runs",
    [
        [run(1.0, "200", "200", "500")],
        [run(1.0, "500")],
        [run(1.0, "200", "timeout"), run(2.0, "timeout"), run(3.0, "500")],
        [run(1.0, "200"), run(2.0, "200", "429"), run(4.0, "429")],
    ],
)
def test_a_plot_is_a_png(runs: list[tuple[object, list[Sent]]], tmp_path: Path) -> None:
    """Of one run, of one without a success, of a sweep."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    draw(path, runs, "score")  # type: ignore[arg-type]
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 10_000


def test_a_run_is_told_by_its_legend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of timeouts and of a run without an answer it says so; a narrow range has no log scale."""
    pytest.importorskip("matplotlib")
    figure = new_figure()
    monkeypatch.setattr("app.cli.bench.plot.new_figure", lambda: figure)
    runs = [run(1.0, "200", "timeout"), run(2.0, "timeout"), run(3.0, "500")]
    draw(tmp_path / "plot.png", runs, "score")  # type: ignore[arg-type]
    left = figure.axes[0]
    assert left.get_legend_handles_labels()[1] == [
        "1/s: 1 timed out (x)",
        "2/s: none answered, 1 timed out (x)",
        "3/s: none answered",
    ]
    assert left.get_xscale() == "linear"


def test_without_the_extra_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line with the name of the extra."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NoPlot, match=r"pip install 'chainrule\[plot\]'"):
        new_figure()
