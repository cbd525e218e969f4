"""A short overload of a real server; `make soak` makes a long one, with stricter bounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.soak.checks import broken
from tests.soak.overload import Figures, Plan, bound_ms, run
from tests.soak.overload_checks import Bounds, checks
from tests.soak.trend import Trend
from tests.tiny_models import save_tiny_model

SHORT = Plan(capacity_s=3, overload_s=4, alone=4)
LOOSE = Bounds(goodput=0.05, offered=0.3, p99=None, memory=None, refused_ms=None, after=None)
"""What holds on a machine that does much other work in one of the two short measurements."""

GOOD = Figures(
    capacity=20.0,
    request_tokens=200.0,
    asked=200.0,
    offered=199.0,
    lag_p99_ms=1.0,
    outcomes=Counter({"200": 1200, "429": 10_800}),
    generator=0.1,
    goodput=17.0,
    p50_ms=1500.0,
    p99_ms=1800.0,
    bound_ms=bound_ms(17.0 * 200),
    refused_p50_ms=3.0,
    refused_p99_ms=20.0,
    resident=1 << 30,
    memory=Trend(slope=100.0, error=100.0),
    queued=0.0,
    before_ms=50.0,
    after_ms=52.0,
    complaints=(),
    said={},
)


@pytest.mark.process
def test_ten_times_too_much_work_is_survived(tmp_path: Path) -> None:
    """What is admitted is answered rightly, the rest is refused, and nothing is left behind."""
    folder = save_tiny_model("llama", tmp_path, hidden_size=256, intermediate_size=1024)
    figures = run(folder, SHORT)
    assert not broken(checks(figures, SHORT, LOOSE))


def test_good_figures_hold() -> None:
    """In all bounds of the long run."""
    assert not broken(checks(GOOD, Plan(), Bounds()))


@pytest.mark.parametrize(
    ("figure", "change"),
    [
        ("offered", {"offered": 150.0}),
        ("goodput", {"goodput": 16.0}),
        ("requests by answer", {"outcomes": Counter({"200": 1200})}),
        ("other answers", {"outcomes": Counter({"200": 1200, "429": 9, "500": 1})}),
        ("other answers", {"outcomes": Counter({"429": 9, "200 with other bits": 1})}),
        ("other answers", {"outcomes": Counter({"429": 9, "429 without Retry-After": 1})}),
        ("admitted, p99", {"p99_ms": 3500.0}),
        ("refused, p50", {"refused_p50_ms": 51.0}),
        ("alone afterwards", {"after_ms": 80.0}),
        ("queue afterwards", {"queued": 1.0}),
        ("memory left", {"memory": Trend(slope=7000.0, error=1000.0)}),
        ("errors in the log", {"complaints": ("a traceback",)}),
    ],
)
def test_each_figure_out_of_bounds_is_told(figure: str, change: dict[str, Any]) -> None:
    """By its name, and no other."""
    (told,) = broken(checks(replace(GOOD, **change), Plan(), Bounds()))
    assert told.figure.startswith(figure)
