"""The best of the scores so far, and what a further one would have to reach to matter."""

from __future__ import annotations

import math
from bisect import insort
from typing import NamedTuple


class ScoredPlace(NamedTuple):
    """A score, what it may be off by, and whose it is."""

    score: float
    error: float
    place: int


class TopKWithTies:
    """Scores in falling order, and the cut behind the ``count`` best.

    The cut never parts scores that cannot be told apart: neighbours at most the sum of their
    errors apart are tied, and ties chain, as in ``normalization.tie_groups``. Of equal scores the
    largest error counts, so that their order does not matter.

    Args:
        count: how many are wanted, ties at the cut beside; at least 1.
        floor: nothing is wanted whose score + error lies below it.
    """

    def __init__(self, count: int, floor: float = -math.inf) -> None:
        self._count = count
        self._floor = floor
        self._falling: list[ScoredPlace] = []

    def add(self, score: float, error: float, place: int) -> None:
        """Take a score in."""
        insort(self._falling, ScoredPlace(score, error, place), key=_falling)

    @property
    def best(self) -> list[ScoredPlace]:
        """The wanted ones, best first, with all that are tied to the last of them."""
        return self._falling[: self._cut()[0]]

    @property
    def threshold(self) -> float:
        """What a score and the largest error of any together have to reach, or it is not wanted."""
        if len(self._falling) < self._count:
            return self._floor
        return max(self._floor, self._cut()[1])

    def _cut(self) -> tuple[int, float]:
        """How many are wanted, and the least that the last of them may be."""
        found, least = self._falling, math.inf
        # From the block of equal scores on that the last one wanted stands in.
        first = max(0, min(self._count, len(found)) - 1)
        while first and found[first - 1].score == found[first].score:
            first -= 1
        while first < len(found):
            score = found[first].score
            stop, error = first, 0.0
            while stop < len(found) and found[stop].score == score:
                error = max(error, found[stop].error)
                stop += 1
            if first >= self._count and score + error < least:
                break
            first, least = stop, score - error
        return first, least


def _falling(scored: ScoredPlace) -> tuple[float, int]:
    return -scored.score, scored.place
