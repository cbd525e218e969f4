"""What depends on all candidates of a list: ranks, probabilities, tie groups.

The same to the bit as ``model_runtime.normalization``, which is not imported here: it comes with
torch, and a client starts in a tenth of the time without it. A test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise


def ranks_of(scores: Sequence[float | None]) -> list[int | None]:
    """1 + the number of strictly better scores; None where there is no score."""
    places: dict[float, int] = {}
    for place, score in enumerate(sorted(_present(scores), reverse=True), start=1):
        places.setdefault(score, place)
    return [None if score is None else places[score] for score in scores]


def shares_of(scores: Sequence[float | None], temperature: float) -> list[float | None]:
    """Softmax of ``score / temperature`` over the scores that there are."""
    best = max(_present(scores), default=0.0)
    weights = [None if one is None else math.exp((one - best) / temperature) for one in scores]
    mass = math.fsum(_present(weights))
    return [None if weight is None else weight / mass for weight in weights]


def tie_groups_of(
    scores: Sequence[float | None], errors: Sequence[float | None]
) -> list[int | None]:
    """Which neighbours in sorted order are closer than their errors; groups count from 1.

    None for a score that is tied with no other, and for all where an error is not known.
    """
    known = {index: error for index, error in enumerate(errors) if error is not None}
    order = sorted(
        (index for index, score in enumerate(scores) if score is not None),
        key=lambda index: -_number(scores[index]),
    )
    groups: list[int | None] = [None] * len(scores)
    if not all(index in known for index in order):
        return groups
    largest: dict[float, float] = {}
    for index in order:
        score = _number(scores[index])
        largest[score] = max(largest.get(score, 0.0), known[index])
    count = 0
    for better, worse in pairwise(order):
        high, low = _number(scores[better]), _number(scores[worse])
        if low != high and low + largest[low] < high - largest[high]:
            continue
        if groups[better] is None:
            count += 1
            groups[better] = count
        groups[worse] = groups[better]
    return groups


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _number(value: float | None) -> float:
    if value is None:
        raise RuntimeError("this is a bug: a candidate without a score was put in order")
    return value
