"""`make bench`: exact search over varied prompts and lengths, and what greedy and beam 4 miss.

All three search the same set under the same objective: completions that end with an end token
or are exactly so long, ranked by the sum of their log-probabilities. Misses count where the
optimum is proven and better by more than the numeric error. Each search begins with a cold cache.

    python -m benchmarks.exact_table --prompts 10 --lengths 4 8
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.in_process import InProcess
from benchmarks.prompts import EIGHT, varied
from benchmarks.table import Table
from benchmarks.timing import median, percentile
from model_runtime import (
    BeamSearch,
    DecodingLimits,
    DecodingResult,
    ExactSearch,
    GreedySearch,
    SearchStrategy,
)

LENGTHS = (2, 4, 6, 8, 10, 12)
BEAMS = 4
MAX_EXPANSIONS = 4096

MISSED = 1e-3
"""Nats between two sums that are no numeric error."""


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt at one length, searched three ways. Totals in nats.

    Attributes:
        text: of the best completion.
        exact, greedy, beam: log-probability of what each found; minus infinity for nothing.
        proven: the exact search's own claim to have found the best.
        expanded: paths that it asked for their continuations.
        seconds: that it took.
    """

    text: str
    exact: float
    greedy: float
    beam: float
    proven: bool
    expanded: int
    seconds: float


class Searches:
    """The engine, and the searches that are compared on it.

    Args:
        ours: a started engine.
        max_expansions: budget of an exact search.
    """

    def __init__(self, ours: InProcess, max_expansions: int) -> None:
        self._ours, self._max_expansions = ours, max_expansions
        self._vocab_size = ours.engine.info.vocab_size
        self._ends = frozenset(ours.engine.info.end_token_ids)

    def case(self, prompt: str, max_tokens: int) -> Case:
        """Search the completions of a prompt.

        Raises:
            SystemExit: what is said to be the best is not as good as an approximation.
        """
        ids = tuple(self._ours.engine.tokenizer.encode(prompt, parse_special=True))
        limits = DecodingLimits(max_tokens, end_token_ids=self._ends)
        began = time.perf_counter()
        found = self._run(self._exact(ids, limits))
        seconds = time.perf_counter() - began
        if found.certificate is None:
            raise SystemExit("an exact search gave no certificate")
        certificate = found.certificate
        greedy, beam = (self._run(search) for search in self._approximations(ids, limits))
        best = found.hypotheses[0].token_ids if found.hypotheses else ()
        case = Case(
            text=self._ours.engine.tokenizer.decode(best),
            exact=_total(found),
            greedy=_total(greedy),
            beam=_total(beam),
            proven=certificate.optimal,
            expanded=certificate.expanded,
            seconds=seconds,
        )
        if case.proven and max(case.greedy, case.beam) > case.exact + MISSED:
            raise SystemExit(f"{prompt!r} at {max_tokens}: the optimum is beaten: {case}")
        return case

    def _exact(self, prompt: tuple[int, ...], limits: DecodingLimits) -> ExactSearch:
        return ExactSearch(
            prompt,
            limits,
            vocab_size=self._vocab_size,
            max_expansions=self._max_expansions,
            num_beams=BEAMS,
        )

    def _approximations(
        self, prompt: tuple[int, ...], limits: DecodingLimits
    ) -> tuple[GreedySearch, BeamSearch]:
        vocab_size = self._vocab_size
        beam = BeamSearch(
            prompt,
            limits,
            vocab_size=vocab_size,
            num_beams=BEAMS,
            length_penalty=0.0,
            early_stopping="never",
        )
        return GreedySearch(prompt, limits, vocab_size=vocab_size), beam

    def _run(self, search: SearchStrategy[DecodingResult]) -> DecodingResult:
        (outcome,) = self._ours.decode([search], self._ours.fresh_salt())
        return outcome.value


def _total(found: DecodingResult) -> float:
    return found.hypotheses[0].logprob if found.hypotheses else -math.inf


def by_length(searches: Searches, prompts: Sequence[str], lengths: Sequence[int]) -> None:
    """Print a row a length."""
    table = Table(
        f"Exact search, {len(prompts)} prompts, sum objective, ended or exactly that long; misses "
        f"and by how many nats, where proven; beam of {BEAMS} by the same sum; cold cache",
        *("max_tokens", "proven", "expansions median", "p90", "max", "seconds median", "p90"),
        *("max", "greedy misses", "median", "max", "beam misses", "median", "max"),
    )
    for length in lengths:
        cases = [searches.case(prompt, length) for prompt in prompts]
        proven = [case for case in cases if case.proven]
        table.row(
            *(str(length), f"{len(proven)} of {len(cases)}"),
            *(f"{figure:.0f}" for figure in spread([case.expanded for case in cases])),
            *(f"{figure:.2f}" for figure in spread([case.seconds for case in cases])),
            *miss_cells([case.exact - case.greedy for case in proven]),
            *miss_cells([case.exact - case.beam for case in proven]),
        )


def spread(samples: Sequence[float]) -> tuple[float, float, float]:
    """Median, 90th percentile and maximum."""
    return median(samples), percentile(samples, 0.9), max(samples)


def miss_cells(differences: Sequence[float]) -> list[str]:
    """How many searches fell short of the optimum, and by how much these did."""
    missed = [nats for nats in differences if nats > MISSED]
    share = f"{len(missed)} of {len(differences)}"
    return [share, *((f"{median(missed):.2f}", f"{max(missed):.2f}") if missed else ("-", "-"))]


def the_eight(searches: Searches, prompts: Sequence[str], length: int = 8) -> None:
    """Print a row a prompt."""
    table = Table(
        f"Exact search of {length} tokens, prompt by prompt",
        *("prompt", "greedy", f"beam {BEAMS}", "optimum", "completion"),
        *("proven", "expansions", "seconds"),
    )
    cases = []
    for prompt in prompts:
        case = searches.case(prompt, length)
        cases.append(case)
        totals = (f"{total:.2f}" for total in (case.greedy, case.beam, case.exact))
        table.row(
            *(cell(prompt), *totals, cell(case.text)),
            *("yes" if case.proven else "no", str(case.expanded), f"{case.seconds:.2f}"),
        )
    seconds = [case.seconds for case in cases]
    expanded = median([case.expanded for case in cases])
    table.row("median", *[""] * 5, f"{expanded:.0f}", f"{median(seconds):.2f}")
    table.row("worst", *[""] * 6, f"{max(seconds):.2f}")


def cell(text: str) -> str:
    """Text as code inside a table: a Python literal, bars and ticks written out."""
    literal = ascii(text).replace("|", r"\x7c").replace("`", r"\x60")
    return f"`{literal}`"


def run(
    _runs: int,
    prompts: int | None = None,
    lengths: Sequence[int] = LENGTHS,
    max_expansions: int = MAX_EXPANSIONS,
) -> None:
    """Print both tables. Searches are many, so each runs once.

    Args:
        prompts: how many of them, in the fixed order; None for all.
        lengths: values of ``max_tokens``.
        max_expansions: budget of a search.
    """
    with InProcess() as ours:
        searches = Searches(ours, max_expansions)
        the_eight(searches, EIGHT[:prompts])
        by_length(searches, varied()[:prompts], lengths)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exact_table")
    parser.add_argument("--prompts", type=int, default=None, help="so many of them; else all")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--max-expansions", type=int, default=MAX_EXPANSIONS)
    arguments = parser.parse_args()
    run(1, arguments.prompts, arguments.lengths, arguments.max_expansions)


if __name__ == "__main__":
    main()
