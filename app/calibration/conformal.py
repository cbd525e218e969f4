"""Split-conformal prediction: sets of options that hold the right one with a chosen probability.

An option is in the set where its probability reaches a threshold, which comes from labelled
decisions that the probabilities were not fitted to. Sadinle, Lei and Wasserman, "Least Ambiguous
Set-Valued Classifiers With Bounded Error Levels" (JASA 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def least_decisions(error_rate: float) -> int:
    """How many decisions a threshold for this error rate takes at least."""
    return math.ceil(1 / Fraction(repr(error_rate))) - 1


def fit_threshold(right: Sequence[float], error_rate: float) -> float:
    """The least probability that an option of a set has.

    It is the k-th largest of the right options' probabilities, ``k = ceil((n + 1) * (1 -
    error_rate))``: of n + 1 decisions in random order, the last one's right option is among the k
    largest with a probability of ``k / (n + 1)`` at least. Reckoned with the rate as it is
    written, so that rounding never makes k smaller.

    Args:
        right: probabilities of the right options, ``least_decisions(error_rate)`` or more.
        error_rate: between 0 and 1.
    """
    rank = math.ceil((len(right) + 1) * (1 - Fraction(repr(error_rate))))
    return sorted(right, reverse=True)[rank - 1]


def prediction_set(probabilities: Sequence[float], threshold: float) -> tuple[int, ...]:
    """The indices of the options that reach the threshold, in order; none, where none does."""
    return tuple(index for index, one in enumerate(probabilities) if one >= threshold)
