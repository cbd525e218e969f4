"""Temperature scaling: the one number by which log-probabilities are best divided.

``softmax(logprobs / T)``, where T minimizes the negative log-likelihood of the right options. In
``1 / T`` that is a convex function, whose derivative is the sum over the decisions of how much the
expected log-probability exceeds the right option's. Guo et al., "On Calibration of Modern Neural
Networks" (ICML 2017), section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from app.calibration.labelled import LabelledDecision
from app.requests.worker_threads import check_wanted

LEAST_TEMPERATURE: Final = 0.05
MOST_TEMPERATURE: Final = 1_000.0
"""Where every right option is the most probable one no finite number is the best: the smaller the
better. Where they are right less often than by chance, the larger the better."""

_ITERATIONS: Final = 200
_PRECISION: Final = 1e-13


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
    lower, upper = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    inverse = 1.0
    for _ in range(_ITERATIONS):
        slope, curvature = _derivatives(decisions, inverse)
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


def _derivatives(decisions: Sequence[LabelledDecision], inverse: float) -> tuple[float, float]:
    """First and second derivative of the negative log-likelihood by ``1 / T``."""
    check_wanted()
    slopes, curvatures = [], []
    for one in decisions:
        best = max(one.logprobs)
        below = [logprob - best for logprob in one.logprobs]
        weights = [math.exp(inverse * by) for by in below]
        mass = math.fsum(weights)
        mean = math.fsum(map(_product, weights, below)) / mass
        square = math.fsum(weight * by * by for weight, by in zip(weights, below, strict=True))
        slopes.append(mean - below[one.right])
        curvatures.append(square / mass - mean * mean)
    return math.fsum(slopes), math.fsum(curvatures)


def _product(one: float, other: float) -> float:
    return one * other
