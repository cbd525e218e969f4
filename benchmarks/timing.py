"""Alternating runs of several sides, medians, and the machine's own limits."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Side = Callable[[], object]


def alternate(
    sides: Mapping[str, Side], runs: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each side, its runs interleaved with the others'.

    ``warm_up`` runs each side once before; whoever has compared their answers has done so already.
    """
    if warm_up:
        for side in sides.values():
            side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            seconds[name].append(seconds_of(side))
    return seconds


def seconds_of(side: Side) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


def median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` of them do not exceed: nearest rank."""
    return sorted(samples)[max(1, math.ceil(share * len(samples))) - 1]


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


def read_bandwidth(repeats: int = 20, floats: int = 128 << 20) -> float:
    """Bytes a second of the fastest pass over a tensor that no cache holds."""
    values = torch.ones(floats)
    best = min(seconds_of(values.sum) for _ in range(repeats))
    return values.numel() * values.itemsize / best
