"""`make bench`: workloads R and I against transformers by hand, in one run."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks import by_hand, workloads
from benchmarks.timing import alternate, median, product_peak
from benchmarks.workloads import Group
from model_runtime import Engine, EngineConfig, LogprobResult, fetch_model, total

ALIAS = "smollm2-135m-instruct"
LARGEST_DIFFERENCE = 1e-3
"""Between the two sides' sums, in nats: they must have computed the same thing."""

Scorer = Callable[[], list[float]]


class Bench:
    """Both sides, loaded, and the loop that the engine lives on."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.engine = Engine.load(EngineConfig(model=ALIAS, max_batch_tokens=4096))
        self.loop.run_until_complete(self.engine.start())
        self.model = by_hand.load(fetch_model(ALIAS))
        self._salts = itertools.count()

    def ours(self, groups: Sequence[Group]) -> list[float]:
        """Sums from a cold cache: a salt of its own for every run."""
        salt = f"run-{next(self._salts)}"
        queries = [query for group in groups for query in group.queries(salt)]
        outcome = self.loop.run_until_complete(self.engine.score(queries))
        return [total(a.logprobs) for a in outcome.value if isinstance(a, LogprobResult)]

    def close(self) -> None:
        self.loop.run_until_complete(self.engine.stop(1.0))
        self.loop.close()


def check_equal(ours: list[float], theirs: list[float]) -> float:
    """The largest difference of two sides' sums; raises where they did not do the same work."""
    worst = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    if not worst < LARGEST_DIFFERENCE:
        raise SystemExit(f"the two sides differ by {worst} nats; nothing was measured")
    return worst


def compare(bench: Bench, name: str, groups: list[Group], theirs: Scorer, runs: int) -> str:
    """One line of the table."""
    worst = check_equal(bench.ours(groups), theirs())
    seconds = alternate({"ours": lambda: bench.ours(groups), "theirs": theirs}, runs)
    peak = product_peak()
    mine, hand = median(seconds["ours"]), median(seconds["theirs"])
    share = math.fsum(group.gflop for group in groups) / mine / peak
    return (
        f"| {name} | {hand:.2f} | {mine:.2f} | {hand / mine:.2f}x | "
        f"{share:.0%} of {peak:.0f} GFLOP/s | {worst:.0e} |"
    )


def run(runs: int) -> None:
    """Print the table."""
    bench = Bench()
    print(f"float32, {torch.get_num_threads()} threads, medians of {runs} alternating cold runs\n")
    print("| workload | by hand, s | chainrule, s | ratio | of the product peak | differ by |")
    print("| --- | --- | --- | --- | --- | --- |")
    for context in (200, 255, 256, 300):
        groups = workloads.ranking(context)
        theirs = partial(by_hand.score_shared, bench.model, groups[0])
        print(compare(bench, f"R, context {context}", groups, theirs, runs), flush=True)
    pairs = workloads.independent()
    theirs = partial(by_hand.score_pairs, bench.model, pairs)
    print(compare(bench, "I, 32 pairs", pairs, theirs, max(2, runs // 2)), flush=True)
    bench.close()
