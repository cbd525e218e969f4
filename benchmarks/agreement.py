"""Two sides are compared only where they have computed the same thing."""

from __future__ import annotations

from collections.abc import Sequence

LARGEST_DIFFERENCE = 1e-3
"""Between the two sides' sums, in nats."""


def check_equal(
    ours: Sequence[float], theirs: Sequence[float], largest: float = LARGEST_DIFFERENCE
) -> float:
    """The largest difference of two sides' sums; ends the benchmark where it is too large."""
    differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    for difference in differences:
        # Asked of each, since the largest of several numbers may hide one that is none.
        if not difference < largest:
            raise SystemExit(f"the two sides differ by {difference} nats; nothing was measured")
    return max(differences)


def check_same(what: str, ours: object, theirs: object) -> None:
    """End the benchmark unless both sides are exactly equal."""
    if ours != theirs:
        raise SystemExit(f"the two sides differ in {what}; nothing was measured")
