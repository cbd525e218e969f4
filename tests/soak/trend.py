"""Whether a series grows: the line of least squares through its second half.

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

MOST_ALIKE = 0.99
"""Correlation of neighbours that is reckoned with at most."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A fitted line.

    Attributes:
        slope: per unit of x.
        error: its standard error.
        samples: that were fitted.
        span: of x among them.
    """

    slope: float
    error: float
    samples: int
    span: float

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
    """The trend of the second half, by x, of samples in ascending order of x.

    Raises:
        ValueError: that half has fewer than 8 samples, or no width.
    """
    middle = (samples[0][0] + samples[-1][0]) / 2 if samples else 0.0
    half = [(x, y) for x, y in samples if x >= middle]
    if len(half) < 8 or half[0][0] == half[-1][0]:
        raise ValueError(f"{len(half)} samples are too few for a trend")
    count = len(half)
    mean_x = math.fsum(x for x, _ in half) / count
    mean_y = math.fsum(y for _, y in half) / count
    spread = math.fsum((x - mean_x) ** 2 for x, _ in half)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in half) / spread
    rest = [y - mean_y - slope * (x - mean_x) for x, y in half]
    squares = math.fsum(one * one for one in rest)
    neighbours = math.fsum(a * b for a, b in pairwise(rest))
    likeness = min(MOST_ALIKE, max(0.0, neighbours / squares)) if squares else 0.0
    independent = squares / (count - 2) / spread
    error = math.sqrt(independent * (1 + likeness) / (1 - likeness))
    return Trend(slope, error, count, half[-1][0] - half[0][0])
