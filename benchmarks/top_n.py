"""`make bench`: the ten best of a catalogue, certified, against scoring all of it.

Compute is tokens fed plus rows through the head. What it is compared with:

    trie     every distinct prefix of the catalogue fed once: our own scoring without pruning
    flat     every candidate by itself behind the cached context
    oracle   the same search told at the start what the tenth best scores: no search with these
             bounds can ask for less

    python -m benchmarks.top_n --sizes 32 1000 10000 --runs 1
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks import catalogue
from benchmarks.agreement import check_same
from benchmarks.in_process import InProcess, results_of
from benchmarks.table import Table
from benchmarks.timing import alternate, median, seconds_of
from model_runtime import (
    LogprobQuery,
    PathScore,
    RankedCandidate,
    RequestOptions,
    TopCandidates,
    TopResult,
    total,
)

SIZES = (32, 1_000, 10_000)
TOP = 10
CONTEXTS = {"related": catalogue.RELATED, "unrelated": catalogue.UNRELATED}
KINDS = ("sum", "mean")

LARGEST_IN_FULL = 10_000
"""Candidates up to which everything is scored as well, to compare winners and seconds."""

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one side was fed and put through the head, and what it took."""

    fed: int
    head_rows: int
    seconds: float

    @property
    def compute(self) -> int:
        return self.fed + self.head_rows


class Contest:
    """One catalogue behind one context, under one normalization."""

    def __init__(self, ours: InProcess, context: str, paths: Sequence[Path], kind: str) -> None:
        self._ours = ours
        self._context = tuple(ours.engine.tokenizer.encode(context))
        self._paths = paths
        error = (ours.engine.info.numeric_error or (0.0, 0.0))[0]
        lengths = [len(path) if kind == "mean" else 1 for path in paths]
        self._candidates = [
            RankedCandidate(path, float(length), error * len(path) / length)
            for path, length in zip(paths, lengths, strict=True)
        ]
        self.result = TopResult((), (), 0)
        self.scores: list[float] = []

    def cost_of(self, side: str) -> Cost:
        """Of one run from a cold cache but for the context."""
        salt = self.fresh_salt()
        before = self._ours.engine.stats()
        run = {"pruned": self.search, "oracle": self._oracle, "trie": self.score_all}[side]
        seconds = seconds_of(partial(run, salt))
        after = self._ours.engine.stats()
        rows = after.head_rows - before.head_rows
        return Cost(after.batch_tokens - before.batch_tokens, rows, seconds)

    def fresh_salt(self) -> str:
        """A salt under which the context is cached and nothing else."""
        salt = self._ours.fresh_salt()
        context = LogprobQuery(self._context, len(self._context), (), cache_salt=salt)
        self._ours.score([context])
        return salt

    def search(self, salt: str, floor: float = -math.inf) -> None:
        """The certified best."""
        search = TopCandidates(
            self._context,
            self._candidates,
            TOP,
            vocab_size=self._ours.engine.info.vocab_size,
            floor=floor,
        )
        options = RequestOptions(cache_salt=salt)
        self.result = self._ours.wait(self._ours.engine.decode(search, options)).value

    def score_all(self, salt: str) -> None:
        """Every candidate, in one request."""
        start = len(self._context)
        queries = [LogprobQuery(self._context + p, start, cache_salt=salt) for p in self._paths]
        answers = results_of(self._ours.wait(self._ours.engine.score(queries)).value)
        self.scores = [
            total(answer.logprobs) / candidate.divisor
            for answer, candidate in zip(answers, self._candidates, strict=True)
        ]

    def check(self) -> None:
        """The winners and their scores are those of scoring everything."""
        order = sorted(range(len(self.scores)), key=lambda index: -self.scores[index])
        best = self.result.best
        check_same("the winners", list(best), order[: len(best)])
        check_same("their scores", *([side(i) for i in best] for side in (self._found, self._all)))

    def _oracle(self, salt: str) -> None:
        last = self.result.best[-1]
        self.search(salt, self._found(last) - self._candidates[last].error)

    def _found(self, index: int) -> float:
        end = self.result.ends[index]
        if not isinstance(end, PathScore):
            raise SystemExit(f"candidate {index} won without a score")
        return end.logprob / self._candidates[index].divisor

    def _all(self, index: int) -> float:
        return self.scores[index]


def run(runs: int, sizes: Sequence[int] = SIZES, kinds: Sequence[str] = KINDS) -> None:
    """Print the tables."""
    table = Table(
        f"The {TOP} best of a generated catalogue, float32, context cached; compute is tokens fed "
        f"plus head rows; seconds of one run, at 32 candidates medians of {runs}",
        *("candidates", "score", "context", "pruned", "compute", "trie / ours", "flat / ours"),
        *("ours / oracle", "seconds", "all of the trie, seconds", "time ratio"),
    )
    with InProcess(max_queue_tokens=1 << 24) as ours:
        for size in sizes:
            names = catalogue.names(size)
            paths = [tuple(ids) for ids in ours.engine.tokenizer.encode_batch(names)]
            for kind in kinds:
                for name, context in CONTEXTS.items():
                    contest = Contest(ours, context, paths, kind)
                    table.row(f"{size:,}", kind, name, *cells(contest, paths, runs))


def cells(contest: Contest, paths: Sequence[Path], runs: int) -> list[str]:
    """One line of the table."""
    ours = contest.cost_of("pruned")
    pruned = contest.result.pruned
    oracle = contest.cost_of("oracle")
    trie, flat = 2 * trie_tokens(paths), 2 * sum(map(len, paths))
    seconds, all_seconds = ours.seconds, math.nan
    if len(paths) <= LARGEST_IN_FULL:
        everything = contest.cost_of("trie")
        check_same("the size of the trie", everything.compute, trie)
        contest.check()
        all_seconds = everything.seconds
    if len(paths) < 100:
        # So few are asked for at once, which leaves nothing but the context in the cache.
        salt = contest.fresh_salt()
        sides = {"pruned": partial(contest.search, salt), "trie": partial(contest.score_all, salt)}
        both = alternate(sides, max(runs, 5))
        seconds, all_seconds = median(both["pruned"]), median(both["trie"])
    times = ("-", "-")
    if not math.isnan(all_seconds):
        times = (f"{all_seconds:.2f}", f"{all_seconds / seconds:.2f}x")
    return [
        *(f"{pruned / len(paths):.1%}", f"{ours.compute:,}", f"{trie / ours.compute:.2f}x"),
        *(f"{flat / ours.compute:.1f}x", f"{ours.compute / oracle.compute:.2f}x"),
        *(f"{seconds:.2f}", *times),
    ]


def trie_tokens(paths: Sequence[Path]) -> int:
    """Distinct prefixes that are fed to score all paths: their last tokens never are."""
    return 1 + len({path[:n] for path in paths for n in range(1, len(path))})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.top_n", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    run(arguments.runs, arguments.sizes, arguments.kinds)
