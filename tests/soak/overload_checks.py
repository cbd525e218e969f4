"""What an overloaded server's figures must keep."""

from __future__ import annotations

from dataclasses import dataclass

from tests.soak.checks import KIB, MIB, Check, at_most, memory_check, words
from tests.soak.overload import Figures, Plan

ALLOWED = frozenset({"200", "429", "504"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """None asks for nothing, where times are too short to tell.

    Attributes:
        goodput: of the capacity, at least, in the CPU time that the generator leaves; elsewhere
            it would be on another machine.
        offered: of ``factor`` times the capacity, at least.
        p99: of the admitted, times ``overload.bound_ms``, at most; a quarter more than 1, since
            that takes the mean speed, and a queue may meet a slower one.
        memory: bytes that a request may leave, at most; in half a minute the heap's own steps are
            not told apart from less.
        refused_ms: median time of a refusal, at most.
        after: of the median before, at most.
    """

    goodput: float = 0.9
    offered: float = 0.95
    p99: float | None = 1.25
    memory: float | None = 8 * KIB
    refused_ms: float | None = 50.0
    after: float | None = 1.5


def checks(figures: Figures, plan: Plan, bounds: Bounds) -> list[Check]:
    """The figures and whether they are in bounds."""
    return [*_rates(figures, plan, bounds), *_times(figures, bounds), *_rest(figures, bounds)]


def _rates(figures: Figures, plan: Plan, bounds: Bounds) -> list[Check]:
    good = figures.goodput / figures.capacity
    fair = good / (1 - figures.generator)
    offered = figures.offered / figures.asked
    counts = ", ".join(f"{count} x {how}" for how, count in sorted(figures.outcomes.items()))
    others = {how: figures.said.get(how, "") for how in figures.outcomes if how not in ALLOWED}
    return [
        Check("capacity, answers/s", f"{figures.capacity:.1f}"),
        Check(
            "offered, requests/s",
            f"{figures.offered:.1f} = {offered * plan.factor:.1f} times the capacity",
            f"at least {bounds.offered * plan.factor:g} times",
            offered >= bounds.offered,
        ),
        Check("generator late, p99 ms", f"{figures.lag_p99_ms:.0f}"),
        Check("generator's part of all cores", f"{figures.generator:.0%}"),
        Check(
            "goodput, answers/s",
            f"{figures.goodput:.1f} = {good:.0%} of the capacity, "
            f"{fair:.0%} of what the generator leaves of it",
            f"at least {bounds.goodput:.0%}",
            fair >= bounds.goodput,
        ),
        Check("requests by answer", counts, "429 among them", figures.outcomes["429"] > 0),
        Check(
            "other answers, wrong bits, 429 without Retry-After",
            words(f"{how} {said}" for how, said in others.items()),
            "none",
            not others,
        ),
    ]


def _times(figures: Figures, bounds: Bounds) -> list[Check]:
    worst = None if bounds.p99 is None else bounds.p99 * figures.bound_ms
    back = None if bounds.after is None else bounds.after * figures.before_ms
    return [
        Check("admitted, p50 ms", f"{figures.p50_ms:.0f}"),
        at_most("admitted, p99 ms", figures.p99_ms, worst),
        at_most("refused, p50 ms", figures.refused_p50_ms, bounds.refused_ms),
        Check("refused, p99 ms", f"{figures.refused_p99_ms:.0f}"),
        Check("alone before, p50 ms", f"{figures.before_ms:.0f}"),
        at_most("alone afterwards, p50 ms", figures.after_ms, back),
    ]


def _rest(figures: Figures, bounds: Bounds) -> list[Check]:
    return [
        Check("queue afterwards, tokens", f"{figures.queued:g}", "0", figures.queued == 0),
        memory_check("memory left by a request", figures.memory, bounds.memory),
        Check("memory at the end, MiB", f"{figures.resident / MIB:.0f}"),
        Check("errors in the log", words(figures.complaints), "none", not figures.complaints),
    ]
