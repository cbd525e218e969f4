"""`make bench`: workload R behind a context that an earlier request has left in the cache."""

from __future__ import annotations

import itertools

from benchmarks import workloads
from benchmarks.agreement import check_same
from benchmarks.in_process import InProcess
from benchmarks.table import Table
from benchmarks.timing import alternate, median, product_peak
from benchmarks.workloads import Group
from model_runtime import total


class RepeatedContext:
    """Candidates that are new in every run, behind the context of the first request."""

    def __init__(self, ours: InProcess) -> None:
        self._ours = ours
        self._salt = ours.fresh_salt()
        (self._first,) = workloads.ranking()
        self._seeds = itertools.count(100)
        self.ask(self._first)

    def fresh(self) -> Group:
        """Candidates that nobody has asked yet."""
        (other,) = workloads.ranking(seed=next(self._seeds))
        return Group(self._first.context, other.candidates)

    def ask(self, group: Group) -> tuple[list[float], int]:
        """Sums, and computed tokens."""
        answers, computed = self._ours.score(group.queries(self._salt))
        return [total(answer.logprobs) for answer in answers], computed

    def ask_cached(self, group: Group) -> list[float]:
        """Sums; ends the benchmark where more than the candidates was computed.

        The last token of the context may be fed again: its row is the first of every candidate.
        """
        sums, computed = self.ask(group)
        if computed > 1 + candidate_tokens(group):
            raise SystemExit(f"{computed} tokens computed for {candidate_tokens(group)} new ones")
        return sums


def candidate_tokens(group: Group) -> int:
    """Tokens of the candidates that must be fed: all but the last of each."""
    return sum(len(candidate) - 1 for candidate in group.candidates)


def run(runs: int) -> None:
    """Print the table."""
    with InProcess() as ours:
        repeated = RepeatedContext(ours)
        group = repeated.fresh()
        check_same("sums with and without a cache", repeated.ask_cached(group), ours.sums([group]))
        _, computed = repeated.ask(repeated.fresh())
        _, all_computed = ours.score(group.queries(ours.fresh_salt()))
        seconds = alternate(
            {
                "cold": lambda: ours.sums([group]),
                "cached": lambda: repeated.ask_cached(repeated.fresh()),
            },
            runs,
            warm_up=False,
        )
    peak = product_peak()
    table = Table(
        f"R, context 256, new candidates: medians of {runs} alternating runs",
        *("context", "s", "computed tokens", "of the product peak"),
    )
    for name, tokens, gflop in (
        ("cold", all_computed, group.gflop),
        ("cached", computed, group.candidate_gflop),
    ):
        spent = median(seconds[name])
        share = gflop / spent / peak
        table.row(name, f"{spent:.2f}", str(tokens), f"{share:.0%} of {peak:.0f} GFLOP/s")
