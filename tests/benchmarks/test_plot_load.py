"""The picture of what ``chainrule bench`` has saved."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from app.cli.bench.load import Load
from app.cli.bench.report import measure
from app.cli.bench.sender import Record, Sent

pytest.importorskip("matplotlib")

from benchmarks.plot_load import Run, draw, main


def run(rate: float, *outcomes: str) -> Run:
    """The report of a run with these outcomes."""
    sent = [
        Sent(0.1 * place, 0.1 * place, 0.1 * place + 0.05, 0.0, False, outcome)
        for place, outcome in enumerate(outcomes)
    ]
    return measure(Load(url="http://far/", rate=rate), Record(sent), 60.0).to_dict()


def test_one_run_has_its_latencies() -> None:
    """As shares of all that was sent: what failed was never answered."""
    (axes,) = draw([run(1.0, "200", "200", "500", "429")], "score").axes
    (line,) = axes.get_lines()
    assert line.get_label() == "1/s"
    latencies, shares = np.asarray(line.get_xydata()).T
    assert latencies == pytest.approx([50.0] * 6)
    assert shares.max() == 0.5


def test_a_sweep_has_its_rates_beside_them() -> None:
    """A run without an answer says so."""
    figure = draw([run(1.0, "200", "timeout"), run(2.0, "500")], "score")
    left, right, beside = figure.axes
    assert [line.get_label() for line in left.get_lines()] == ["1/s", "2/s: none answered"]
    assert [line.get_label() for line in right.get_lines()] == ["offered", "answered", "in time"]
    assert [line.get_label() for line in beside.get_lines()] == ["p50", "p95", "p99"]


def test_a_saved_load_becomes_a_png(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From file to file."""
    saved = {"load": {"shape": "score", "url": "http://far/"}, "runs": [run(1.0, "200")]}
    (tmp_path / "load.json").write_text(json.dumps(saved))
    names = [str(tmp_path / name) for name in ("load.json", "load.png")]
    monkeypatch.setattr(sys, "argv", ["plot_load", *names])
    main()
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
