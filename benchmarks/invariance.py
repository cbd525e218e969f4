"""`make bench`: what batch invariance costs.

The same model with the same packed products answers the same queries twice: along the paths, in
canonical blocks whose shapes depend on a row's own position alone, and with transformers' own
attention, context computed once and candidates padded. The plain side's head is torch's product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks import by_hand, workloads
from benchmarks.agreement import check_equal
from benchmarks.bare import Bare
from benchmarks.table import Table
from benchmarks.timing import alternate, median, product_peak
from benchmarks.workloads import Group
from model_runtime import total
from model_runtime.batching.batch import Batch

PAIRS = by_hand.PAIRS_AT_ONCE
"""Of workload I: so many that the plain side takes them as one batch."""

Score = Callable[[], list[float]]


def canonical(bare: Bare, batch: Batch) -> list[float]:
    """Sums along the paths of a batch."""
    return [total(answer.logprobs) for answer in bare.answer(batch)]


def plain(bare: Bare, score: Callable[..., list[float]], work: object) -> list[float]:
    """Sums of the same by hand, in transformers' attention."""
    with bare.plain_attention() as model:
        return score(model, work)


def compare(ours: Score, theirs: Score, gflop: float, runs: int) -> list[str]:
    """The cells behind the workload's name."""
    worst = check_equal(ours(), theirs())
    seconds = alternate({"canonical": ours, "plain": theirs}, runs, warm_up=False)
    mine, hand = median(seconds["canonical"]), median(seconds["plain"])
    peak = product_peak()
    return [
        *(f"{hand:.2f}", f"{mine:.2f}", f"{mine / hand:.2f}x"),
        *(f"{gflop / mine / peak:.0%} of {peak:.0f} GFLOP/s", f"{worst:.0e}"),
    ]


def run(runs: int) -> None:
    """Print the table."""
    bare = Bare(kernels="torch")
    table = Table(
        f"One forward of the same packed model, float32: medians of {runs} alternating runs",
        *("workload", "transformers' attention, s", "canonical, s", "canonical / plain"),
        *("of the product peak", "sums differ by"),
    )
    for name, groups, score in workload_sides():
        batch = bare.plan([query for group in groups for query in group.queries("")])
        work = groups if score is by_hand.score_pairs else groups[0]
        ours, theirs = partial(canonical, bare, batch), partial(plain, bare, score, work)
        table.row(name, *compare(ours, theirs, sum(group.gflop for group in groups), runs))


def workload_sides() -> list[tuple[str, list[Group], Callable[..., list[float]]]]:
    """What is measured, and how it is scored by hand."""
    return [
        ("R, context 256", workloads.ranking(), by_hand.score_shared),
        (f"I, {PAIRS} pairs", workloads.independent(PAIRS), by_hand.score_pairs),
    ]
