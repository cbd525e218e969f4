"""The best completions that a search has found so far."""

from __future__ import annotations

import math
from bisect import insort
from typing import NamedTuple

from model_runtime.decoding.hypothesis_path import PartialHypothesis


class FinishedPath(NamedTuple):
    """A completion and what it is ranked by."""

    score: float
    prefix: PartialHypothesis


class TopK:
    """The ``places`` best completions at or above a floor.

    Equal scores are ordered by length, then by tokens; of several at the last place any one stays.

    Args:
        places: completions kept at most.
        floor: the least score that counts.
    """

    def __init__(self, places: int, floor: float = -math.inf) -> None:
        self.places = places
        self.found: list[FinishedPath] = []
        self._floor = floor

    @property
    def full(self) -> bool:
        """Every place is taken: only a better completion comes in."""
        return len(self.found) == self.places

    @property
    def complete(self) -> bool:
        """Nothing at or above the floor was left out for want of a place.

        Without a floor nothing but the best is wanted.
        """
        return not self.full or self._floor == -math.inf

    @property
    def cut(self) -> float:
        """What a completion has to reach, or to exceed where all places are taken."""
        return self.found[-1].score if self.full else self._floor

    def wants(self, score: float) -> bool:
        """Whether a completion that scores no more than this may still come in."""
        if self.full or score == -math.inf:
            return score > self.cut
        return score >= self.cut

    def offer(self, score: float, prefix: PartialHypothesis) -> None:
        """Keep a completion if it is among the best. None may be offered twice."""
        if score < self._floor or score == -math.inf:
            return
        insort(self.found, FinishedPath(score, prefix), key=_order)
        del self.found[self.places :]


def _order(finished: FinishedPath) -> tuple[float, int, tuple[int, ...]]:
    return -finished.score, finished.prefix.length, finished.prefix.tokens
