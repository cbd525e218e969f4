"""`make bench`: 64 groups of 16 prompts that begin alike, against prompts that share nothing.

Every prompt is a request of its own, so what is shared is found among concurrent requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from benchmarks import by_hand, workloads
from benchmarks.agreement import check_same
from benchmarks.in_process import InProcess, results_of
from benchmarks.table import Table
from benchmarks.timing import alternate, median, product_peak
from benchmarks.workloads import ALIAS, BODY_GFLOP, HEAD_GFLOP
from model_runtime import LogprobQuery, LogprobResult, fetch_model

GROUPS, EACH, SHARED, OWN = 64, 16, 96, 16
"""Groups, prompts in each, tokens that a group shares, tokens of a prompt's own."""

APART = 8
"""Groups that are run with nothing shared; all would take minutes and show the same rate."""

Prompt = tuple[int, ...]


def distinct_tokens(prompts: Sequence[Prompt]) -> int:
    """Distinct token paths among all beginnings of the prompts: what must be computed."""
    return len({prompt[:n] for prompt in prompts for n in range(1, len(prompt) + 1)})


class Asker:
    """Asks for the most probable next token of every prompt, a request each, all at once."""

    def __init__(self, ours: InProcess) -> None:
        self._ours = ours

    def ask(self, prompts: Sequence[Prompt], *, share: bool) -> tuple[list[LogprobResult], int]:
        """Answers from a cold cache, and computed tokens."""
        common = self._ours.fresh_salt()
        salts = [common if share else self._ours.fresh_salt() for _ in prompts]
        queries = [
            LogprobQuery(prompt, len(prompt), (), top_k=1, cache_salt=salt)
            for prompt, salt in zip(prompts, salts, strict=True)
        ]
        engine = self._ours.engine

        async def run() -> tuple[list[LogprobResult], int]:
            outcomes = await asyncio.gather(*(engine.next_token(query) for query in queries))
            answers = results_of([outcome.value for outcome in outcomes])
            return answers, sum(outcome.computed_tokens for outcome in outcomes)

        return self._ours.wait(run())


def check(asker: Asker, prompts: Sequence[Prompt]) -> None:
    """One group has the same bits shared and apart, and the tokens that transformers finds."""
    together, _ = asker.ask(prompts, share=True)
    apart, _ = asker.ask(prompts, share=False)
    check_same("what is shared and what is not", together, apart)
    by_them = by_hand.next_tokens(by_hand.load(fetch_model(ALIAS)), prompts)
    check_same("the next tokens", [answer.top[0][0].id for answer in together], by_them)


def run(runs: int) -> None:
    """Print the table."""
    groups = workloads.shared_prefixes(GROUPS, EACH, SHARED, OWN, seed=8)
    prompts = [prompt for group in groups for prompt in group.prompts]
    some = prompts[: APART * EACH]
    rounds = max(1, runs // 3)
    with InProcess() as ours:
        asker = Asker(ours)
        check(asker, prompts[:EACH])
        computed: dict[str, int] = {}

        def side(name: str, part: Sequence[Prompt], share: bool) -> None:
            _, computed[name] = asker.ask(part, share=share)

        sides = {
            "shared": partial(side, "shared", prompts, True),
            "nothing shared": partial(side, "nothing shared", some, False),
        }
        seconds = alternate(sides, rounds, warm_up=False)
    report(computed, {name: median(values) for name, values in seconds.items()}, prompts, rounds)


def report(
    computed: dict[str, int], seconds: dict[str, float], prompts: Sequence[Prompt], rounds: int
) -> None:
    """Print the table; end the benchmark where a shared token was computed twice."""
    if computed["shared"] != distinct_tokens(prompts):
        raise SystemExit(f"{computed['shared']} tokens computed, {distinct_tokens(prompts)} differ")
    peak = product_peak()
    table = Table(
        f"Next token of {GROUPS} groups x {EACH} prompts of {SHARED} shared + {OWN} own tokens, "
        f"cold, float32 ({APART} groups where nothing is shared): medians of {rounds} alternating "
        "runs",
        *("prefixes", "prompts/s", "ratio", "computed tokens a prompt", "floor, prompts/s"),
        "of the product peak",
    )
    sizes = {"nothing shared": APART * EACH, "shared": len(prompts)}
    slow = sizes["nothing shared"] / seconds["nothing shared"]
    for name, count in sizes.items():
        rate, tokens = count / seconds[name], computed[name] / count
        floor = peak / (tokens * BODY_GFLOP + HEAD_GFLOP)
        table.row(
            *(name, f"{rate:.1f}", f"{rate / slow:.2f}x", f"{tokens:.1f}", f"{floor:.1f}"),
            f"{rate / floor:.0%} of {peak:.0f} GFLOP/s",
        )
