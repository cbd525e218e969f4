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


class BestScores:
    """Scores in falling order, and the cut behind the ``count`` best.

    The cut never parts scores that cannot be told apart: neighbours at most the sum of their
    errors apart are tied, and ties chain, as in ``normalization.tie_groups``.

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
        found, kept = self._falling, min(self._count, len(self._falling))
        while 0 < kept < len(found) and _tied(found[kept - 1], found[kept]):
            kept += 1
        return found[:kept]

    @property
    def threshold(self) -> float:
        """What score + error of a candidate have to reach, or it is not among the wanted."""
        if len(self._falling) < self._count:
            return self._floor
        last = self.best[-1]
        return max(self._floor, last.score - last.error)


def _falling(scored: ScoredPlace) -> tuple[float, int]:
    return -scored.score, scored.place


def _tied(better: ScoredPlace, worse: ScoredPlace) -> bool:
    return better.score - worse.score <= better.error + worse.error
