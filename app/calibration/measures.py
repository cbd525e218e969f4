"""How good probabilities are, where the right options are known."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BINS: Final = 10
"""Of equal width, for the reliability and the expected calibration error."""

_EDGES: Final = [place / BINS for place in range(1, BINS)]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said of one decision.

    Attributes:
        log_shares: logarithms of the options' probabilities.
        right: index of the option that is right.
    """

    log_shares: Sequence[float]
    right: int

    @property
    def best(self) -> int:
        """The most probable option; of equals the first."""
        return self.log_shares.index(max(self.log_shares))


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions whose most probable option has about one probability.

    Attributes:
        count: so many.
        confidence: mean probability of the most probable option.
        accuracy: how often that one was right.
    """

    count: int
    confidence: float
    accuracy: float


def negative_log_likelihood(predictions: Sequence[Prediction]) -> float:
    """Mean of -log of the right option's probability, in nats."""
    return math.fsum(-one.log_shares[one.right] for one in predictions) / len(predictions)


def brier_score(predictions: Sequence[Prediction]) -> float:
    """Mean over the decisions of the squared error, summed over all options: from 0 to 2."""
    return math.fsum(map(_squared_error, predictions)) / len(predictions)


def accuracy(predictions: Sequence[Prediction]) -> float:
    """How often the most probable option is right."""
    return sum(one.best == one.right for one in predictions) / len(predictions)


def reliability(predictions: Sequence[Prediction]) -> list[Bin]:
    """Predictions by the probability of their most probable option, in those bins that have any.

    A bin holds its upper end and not its lower one.
    """
    groups: list[list[Prediction]] = [[] for _ in range(BINS)]
    for one in predictions:
        groups[bisect_left(_EDGES, _confidence(one))].append(one)
    return [
        Bin(len(group), math.fsum(map(_confidence, group)) / len(group), accuracy(group))
        for group in groups
        if group
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance of confidence and accuracy over the bins, each by its share of decisions."""
    whole = sum(one.count for one in bins)
    return math.fsum(one.count * abs(one.confidence - one.accuracy) for one in bins) / whole


def _confidence(one: Prediction) -> float:
    return math.exp(max(one.log_shares))


def _squared_error(one: Prediction) -> float:
    return math.fsum(
        (math.exp(share) - (index == one.right)) ** 2 for index, share in enumerate(one.log_shares)
    )
