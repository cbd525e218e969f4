"""Isotonic regression: the non-decreasing curve that is nearest to what was right.

Fitted by pooling adjacent violators, linear between its points, and constant beyond them. Zadrozny
and Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates" (KDD
2002).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from app.calibration.labelled import LabelledDecision
from app.calibration.temperature import log_softmax
from app.requests.worker_threads import check_wanted

Point = tuple[float, float]


def fit_isotonic(pairs: Iterable[Point]) -> list[Point]:
    """The non-decreasing curve with the least squared distance, as its corners.

    Args:
        pairs: (x, y) in any order; pairs of one x count as their mean. At least one.
    """
    xs, means, weights = [], [], []
    for x, group in groupby(sorted(pairs), key=itemgetter(0)):
        ys = [y for _, y in group]
        xs.append(x)
        means.append(math.fsum(ys) / len(ys))
        weights.append(len(ys))
    check_wanted()
    return _corners(list(zip(xs, pool_adjacent_violators(means, weights), strict=True)))


def pool_adjacent_violators(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence with the least weighted squared distance to ``values``."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, mass, count = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            other, other_mass, other_count = blocks.pop()
            mean = (other * other_mass + mean * mass) / (other_mass + mass)
            mass, count = mass + other_mass, count + other_count
        blocks.append((mean, mass, count))
    return [mean for mean, _, count in blocks for _ in range(count)]


def _corners(points: Sequence[Point]) -> list[Point]:
    """Without the points inside of a level stretch, which change no value in between."""
    last = len(points) - 1
    return [
        point
        for place, point in enumerate(points)
        if place in (0, last) or not points[place - 1][1] == point[1] == points[place + 1][1]
    ]


def value_at(points: Sequence[Point], x: float) -> float:
    """The curve's value, between two points on the line through them."""
    place = bisect_right(points, x, key=itemgetter(0))
    if place == 0:
        return points[0][1]
    (left, low) = points[place - 1]
    if place == len(points) or x == left:
        return low
    right, high = points[place]
    # Rounding must not leave the two values, or a larger x could have the smaller one.
    return min(max(low + (high - low) * ((x - left) / (right - left)), low), high)


def fit_curve(decisions: Sequence[LabelledDecision]) -> list[Point]:
    """From a probability to how often options of that probability are right.

    Of predicates it is the curve of yes alone. Otherwise every option of every question is a
    point: one against the rest, with one curve for all, as questions differ in their options.

    No value is nearer to 0 than ``1 / (m + 2)`` nor to 1 than ``1 / (n + 2)``, m being the points
    and n the decisions: what the rule of succession says of something that never happened to m
    options, and of something that happened in all of n decisions. So all options of a question that
    were never right have together about what is left by one that always was, however many they are.
    """
    pairs: list[Point] = []
    for one in decisions:
        shares = [math.exp(share) for share in log_softmax(one.logprobs)]
        pairs += [
            (share, float(index == one.right))
            for index, share in enumerate(shares[: 1 if one.kind == "predicate" else None])
        ]
    least, most = 1 / (len(pairs) + 2), 1 - 1 / (len(decisions) + 2)
    return _corners([(x, min(max(y, least), most)) for x, y in fit_isotonic(pairs)])


def log_curve_shares(
    points: Sequence[Point], logprobs: Sequence[float], *, is_predicate: bool
) -> list[float]:
    """Logarithms of the curve's values, made to add up to 1 over the options."""
    shares = [math.exp(share) for share in log_softmax(logprobs)]
    if is_predicate:
        yes = value_at(points, shares[0])
        return [math.log(yes), math.log1p(-yes)]
    return log_softmax([math.log(value_at(points, share)) for share in shares])
