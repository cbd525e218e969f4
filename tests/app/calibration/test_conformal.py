"""Split-conformal sets: how often they hold the right option."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from app.calibration.conformal import fit_threshold, least_decisions, prediction_set
from tests.app.calibration.labelled_decisions import softmax


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.2, 0.29, 0.3, 0.45])
def test_the_threshold_has_the_rank_of_its_rate(rate: float) -> None:
    """Of n + 1 equally likely places of a new decision, those below the threshold are at most the
    rate, and one more would be too many; reckoned with whole numbers."""
    exact = Fraction(str(rate))
    for count in range(least_decisions(rate), least_decisions(rate) + 130):
        values = [place / count for place in range(count)]
        threshold = fit_threshold(values, rate)
        missed = values.index(threshold) + 1
        assert Fraction(missed, count + 1) <= exact < Fraction(missed + 1, count + 1)


@pytest.mark.parametrize(("rate", "least"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.3, 3), (0.5, 1)])
def test_a_rate_takes_so_many_decisions(rate: float, least: int) -> None:
    """With one fewer no option could be left out."""
    assert least_decisions(rate) == least
    assert fit_threshold([0.5] * least, rate) == 0.5
    if least > 1:
        assert (least - 1 + 1) * Fraction(str(rate)) < 1


def test_a_set_has_what_reaches_the_threshold() -> None:
    """Equal is enough; there may be none."""
    assert prediction_set((0.2, 0.5, 0.3), 0.3) == (1, 2)
    assert prediction_set((0.4, 0.3, 0.3), 0.5) == ()


@pytest.mark.parametrize("rate", [0.1, 0.25])
def test_coverage_is_what_was_asked_for(rate: float) -> None:
    """Over many draws of labels and of new decisions, of a model that is wrong about itself: not
    below 1 - rate, and above it by 1 / (n + 1) at most, each within four standard errors."""
    source = random.Random(11)
    count, draws, fresh = 37, 600, 20
    hits = 0
    for _ in range(draws):
        threshold = fit_threshold([_right(*_decision(source)) for _ in range(count)], rate)
        for _ in range(fresh):
            shares, right = _decision(source)
            hits += right in prediction_set(shares, threshold)
    coverage = hits / (draws * fresh)
    # A draw's coverage is of a beta law; its spread comes to that of its fresh decisions.
    spread = math.sqrt(rate * (1 - rate) * (1 / (count + 2) + 1 / fresh) / draws)
    assert 1 - rate - 4 * spread <= coverage <= 1 - rate + 1 / (count + 1) + 4 * spread


def _decision(source: random.Random) -> tuple[list[float], int]:
    truth = [source.gauss(0, 1.5) for _ in range(source.randint(2, 6))]
    (right,) = source.choices(range(len(truth)), softmax(truth))
    return softmax([4 * one + source.gauss(0, 1) for one in truth]), right


def _right(shares: list[float], right: int) -> float:
    return shares[right]
