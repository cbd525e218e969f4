"""Whether a series grows: the line of least squares through it.

What a process holds wanders: the C library keeps freed memory and gives it back in large pieces. So
neighbouring samples say nearly the same, and the usual error of a slope would be much too small.
Here it is widened by what the residuals' correlation with their neighbours makes of it: for r, as
of an autoregression of first order, by the root of (1 + r) / (1 - r).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

CONFIDENCE_SIGMAS = 1.645
"""One-sided: 95 % of a normal distribution lie below."""

FEWEST = 8

MOST_ALIKE = 0.99
"""Correlation of neighbours that is reckoned with at most."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A fitted line.

    Attributes:
        slope: per unit of x.
        error: its standard error.
    """

    slope: float
    error: float

    @property
    def low(self) -> float:
        """The slope is above this with 95 % confidence."""
        return self.slope - CONFIDENCE_SIGMAS * self.error

    @property
    def high(self) -> float:
        """The slope is below this with 95 % confidence."""
        return self.slope + CONFIDENCE_SIGMAS * self.error

    def grows(self, bound: float) -> bool:
        """Whether growth by more than ``bound`` cannot be ruled out."""
        return self.high > bound


def trend(samples: Sequence[tuple[float, float]]) -> Trend:
    """The trend of samples in ascending order of x.

    Raises:
        ValueError: there are fewer than ``FEWEST``, or all have one x.
    """
    count = len(samples)
    if count < FEWEST or samples[0][0] == samples[-1][0]:
        raise ValueError(f"{count} samples are too few for a trend")
    mean_x = math.fsum(x for x, _ in samples) / count
    mean_y = math.fsum(y for _, y in samples) / count
    spread = math.fsum((x - mean_x) ** 2 for x, _ in samples)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in samples) / spread
    rest = [y - mean_y - slope * (x - mean_x) for x, y in samples]
    squares = math.fsum(one * one for one in rest)
    neighbours = math.fsum(a * b for a, b in pairwise(rest))
    likeness = min(MOST_ALIKE, max(0.0, neighbours / squares)) if squares else 0.0
    independent = squares / (count - 2) / spread
    error = math.sqrt(independent * (1 + likeness) / (1 - likeness))
    return Trend(slope, error)


def second_half(samples: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """What lies behind the middle of x, where a warm-up is over."""
    middle = (samples[0][0] + samples[-1][0]) / 2 if samples else 0.0
    return [(x, y) for x, y in samples if x >= middle]
