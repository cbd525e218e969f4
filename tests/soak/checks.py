"""A figure, what it may be, and whether it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.soak.trend import Trend

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a table.

    Attributes:
        figure: what it is.
        measured: its value, in words.
        bound: what it must be, in words; empty where it is only told.
        holds: whether it is.
    """

    figure: str
    measured: str
    bound: str = ""
    holds: bool = True


def broken(checks: Iterable[Check]) -> list[Check]:
    """Those that do not hold."""
    return [check for check in checks if not check.holds]


def at_most(figure: str, value: float, bound: float | None) -> Check:
    """A figure with an upper bound; None asks for nothing."""
    if bound is None:
        return Check(figure, f"{value:.0f}")
    return Check(figure, f"{value:.0f}", f"at most {bound:.0f}", value <= bound)


def memory_check(figure: str, memory: Trend, bound: float | None) -> Check:
    """A slope in bytes, which is below ``bound`` with 95 % confidence; None asks for nothing."""
    slope, low, high = (f"{value / KIB:.1f}" for value in (memory.slope, memory.low, memory.high))
    measured = f"{slope} KiB, {low} to {high}"
    if bound is None:
        return Check(figure, measured)
    return Check(figure, measured, f"at most {bound / KIB:g} KiB", not memory.grows(bound))


def words(mistakes: Iterable[str], most: int = 5) -> str:
    """How many there are, and the first of them."""
    listed = list(mistakes)
    return "none" if not listed else f"{len(listed)}: {'; '.join(listed[:most])}"
