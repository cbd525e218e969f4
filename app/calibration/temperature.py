"""Temperature scaling: the one number by which log-probabilities are best divided.

``softmax(logprobs / T)``, where T minimizes the negative log-likelihood of the right options. In
``1 / T`` that is a convex function, whose derivative is the sum over the decisions of how much the
expected log-probability exceeds the right option's. Guo et al., "On Calibration of Modern Neural
Networks" (ICML 2017), section 4.2.

A few labels that all happen to be right would make it certainty. So ``PSEUDO_DECISIONS`` are added
to them, whose right options are as the model's own probabilities say. Where the model cannot tell
two options apart, that is the rule of succession: of n right out of n, ``(n + 1) / (n + 2)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import mul
from typing import Final

from app.calibration.labelled import LabelledDecision
from app.requests.worker_threads import check_wanted

LEAST_TEMPERATURE: Final = 0.05
MOST_TEMPERATURE: Final = 1_000.0
"""Where right options are less probable than by chance no finite number is the best: the larger
the better. Where many are right by a small lead, the best one is near 0."""

PSEUDO_DECISIONS: Final = 2
"""How many decisions the model's own probabilities count for, as a prior."""

_ITERATIONS: Final = 200
_PRECISION: Final = 1e-13


@dataclass(frozen=True, slots=True)
class _Target:
    """What one decision asks of the temperature.

    Attributes:
        below: by how much each option's log-probability is below the largest one, at most 0.
        mean: of these, over the right option and what the model itself says, by their weights.
    """

    below: list[float]
    mean: float


def log_softmax(logprobs: Sequence[float], temperature: float = 1.0) -> list[float]:
    """The logarithms of ``softmax(logprobs / temperature)``; -inf stays."""
    best = max(logprobs)
    scaled = [(logprob - best) / temperature for logprob in logprobs]
    whole = math.log(math.fsum(map(math.exp, scaled)))
    return [one - whole for one in scaled]


def fit_temperature(decisions: Sequence[LabelledDecision]) -> float:
    """The temperature that makes the right options most likely, within the bounds above.

    1 where every temperature is as good.

    Args:
        decisions: at least one.
    """
    prior = PSEUDO_DECISIONS / len(decisions)
    targets = [_target(one, prior) for one in decisions]
    lower, upper = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    inverse = 1.0
    for _ in range(_ITERATIONS):
        slope, curvature = _derivatives(targets, inverse)
        if slope == 0:
            break
        if slope > 0:
            upper = inverse
        else:
            lower = inverse
        before, inverse = inverse, _next(inverse, slope, curvature, lower, upper)
        if abs(inverse - before) <= _PRECISION * before:
            break
    return 1 / inverse


def _next(inverse: float, slope: float, curvature: float, lower: float, upper: float) -> float:
    """Newton's step where it stays between the bounds, else their geometric mean."""
    step = inverse - slope / curvature if curvature > 0 else math.inf
    return step if lower <= step <= upper else math.sqrt(lower * upper)


def _target(one: LabelledDecision, prior: float) -> _Target:
    best = max(one.logprobs)
    below = [logprob - best for logprob in one.logprobs]
    own, _ = _moments(below, 1.0)
    return _Target(below, (below[one.right] + prior * own) / (1 + prior))


def _derivatives(targets: Sequence[_Target], inverse: float) -> tuple[float, float]:
    """First and second derivative by ``1 / T`` of the mean negative log-likelihood, times the
    number of decisions."""
    check_wanted()
    slopes, curvatures = [], []
    for one in targets:
        mean, variance = _moments(one.below, inverse)
        slopes.append(mean - one.mean)
        curvatures.append(variance)
    return math.fsum(slopes), math.fsum(curvatures)


def _moments(below: Sequence[float], inverse: float) -> tuple[float, float]:
    """Mean and variance of these under ``softmax(below * inverse)``."""
    weights = list(map(math.exp, map(mul, below, repeat(inverse))))
    products = list(map(mul, weights, below))
    mass = math.fsum(weights)
    mean = math.fsum(products) / mass
    return mean, math.fsum(map(mul, products, below)) / mass - mean * mean
