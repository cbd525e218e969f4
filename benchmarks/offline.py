"""`make bench`: workloads R and I against transformers by hand, in one run."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from benchmarks import by_hand, workloads
from benchmarks.agreement import check_equal
from benchmarks.in_process import InProcess
from benchmarks.table import Table
from benchmarks.timing import alternate, median, product_peak
from benchmarks.workloads import ALIAS, Group
from model_runtime import fetch_model

Scorer = Callable[[], list[float]]


def compare(ours: InProcess, groups: list[Group], theirs: Scorer, runs: int) -> list[str]:
    """The cells behind the workload's name."""
    worst = check_equal(ours.sums(groups), theirs())
    sides = {"ours": lambda: ours.sums(groups), "theirs": theirs}
    seconds = alternate(sides, runs, warm_up=False)
    peak = product_peak()
    mine, hand = median(seconds["ours"]), median(seconds["theirs"])
    share = math.fsum(group.gflop for group in groups) / mine / peak
    return [
        *(f"{hand:.2f}", f"{mine:.2f}", f"{hand / mine:.2f}x"),
        *(f"{share:.0%} of {peak:.0f} GFLOP/s", f"{worst:.0e}"),
    ]


def run(runs: int) -> None:
    """Print the table."""
    model = by_hand.load(fetch_model(ALIAS))
    with InProcess() as ours:
        table = Table(
            f"R and I, cold cache, float32: medians of {runs} alternating runs (of I half as many)",
            *("workload", "by hand, s", "chainrule, s", "ratio"),
            *("of the product peak", "sums differ by"),
        )
        for context in (200, 255, 256, 300):
            groups = workloads.ranking(context)
            theirs = partial(by_hand.score_shared, model, groups[0])
            table.row(f"R, context {context}", *compare(ours, groups, theirs, runs))
        pairs = workloads.independent()
        theirs = partial(by_hand.score_pairs, model, pairs)
        table.row("I, 32 pairs", *compare(ours, pairs, theirs, max(1, runs // 2)))
