"""Alternating runs of several sides, medians, and the machine's own limit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Side = Callable[[], object]


def alternate(sides: Mapping[str, Side], runs: int) -> dict[str, list[float]]:
    """Seconds of each side, its runs interleaved with the others'; one warm-up run each."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def product_peak(repeats: int = 20) -> float:
    """GFLOP/s of the fastest float32 product at the model's shapes: the limit in this run."""
    rows, wide, narrow = 768, 1536, 576
    weight = torch.ops.mkldnn._reorder_linear_weight(torch.randn(wide, narrow), rows)
    x = torch.randn(rows, narrow)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(5):
            torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        best = min(best, (time.perf_counter() - start) / 5)
    return 2 * rows * wide * narrow / best / 1e9


def median(seconds: list[float]) -> float:
    return statistics.median(seconds)
