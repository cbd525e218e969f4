"""Isotonic regression: scikit-learn's curve, and what is made of it."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression, isotonic_regression

from app.calibration.isotonic import (
    fit_curve,
    fit_isotonic,
    log_curve_shares,
    pool_adjacent_violators,
    value_at,
)
from app.calibration.labelled import LabelledDecision
from tests.app.calibration.labelled_decisions import drawn, skewed

GRID = [place / 64 for place in range(65)]
PAIRS = st.lists(st.tuples(st.sampled_from(GRID), st.sampled_from([0.0, 1.0])), min_size=1)


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_the_curve_is_that_of_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    """At its points, between them and beyond them, with equal x among the data."""
    xs, ys = zip(*pairs, strict=True)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(np.array(xs), np.array(ys))
    curve = fit_isotonic(pairs)
    probes = [x / 100 for x in range(-5, 106, 3)] + list(xs)
    expected = oracle.predict(np.array(probes))
    assert [value_at(curve, x) for x in probes] == pytest.approx(list(expected), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-5, 5, allow_subnormal=False), st.integers(1, 9)),
        min_size=1,
        max_size=40,
    )
)
def test_pooling_is_that_of_scikit_learn(weighted: list[tuple[float, int]]) -> None:
    """With weights."""
    values, weights = zip(*weighted, strict=True)
    expected = isotonic_regression(np.array(values), sample_weight=np.array(weights, dtype=float))
    assert pool_adjacent_violators(values, weights) == pytest.approx(list(expected), abs=1e-9)


def test_a_curve_never_falls_and_never_reaches_certainty() -> None:
    """Whatever it was fitted to: ``1 / (n + 2)`` of n options to 0, of n decisions to 1."""
    for kind, decisions in (
        ("choice", drawn(2, 80, temperature=3.0)),
        ("predicate", skewed(2, 80)),
        ("right", [LabelledDecision("choice", (-1.0, -9.0), 0)] * 8),
    ):
        curve = fit_curve(decisions)
        values = [value_at(curve, x / 997) for x in range(998)]
        assert values == sorted(values), kind
        points = sum(1 if one.kind == "predicate" else len(one.logprobs) for one in decisions)
        assert 1 / (points + 2) <= values[0]
        assert values[-1] <= 1 - 1 / (len(decisions) + 2)


@pytest.mark.parametrize("right_rate", [0.95, 1.0])
@pytest.mark.parametrize("options", [2, 20, 50, 255])
def test_many_options_take_nothing_from_the_right_one(options: int, right_rate: float) -> None:
    """However many there are, the first is as probable as it is often right: by the rule of
    succession, within four standard errors of so many labels."""
    count, source = 100, random.Random(options)
    spread = 4 * math.sqrt(0.05 * 0.95 / count)
    curve = fit_curve([_mostly_right(source, options, right_rate) for _ in range(count)])
    for _ in range(20):
        one = _mostly_right(source, options, right_rate)
        found = math.exp(max(log_curve_shares(curve, one.logprobs, is_predicate=False)))
        assert found == pytest.approx((count * right_rate + 1) / (count + 2), abs=spread)


def _mostly_right(source: random.Random, options: int, right_rate: float) -> LabelledDecision:
    """Of a model that prefers one option by far, which is right at this rate."""
    best, *rest = source.sample(range(options), options)
    right = best if source.random() < right_rate else source.choice(rest)
    logprobs = [source.uniform(-14, -12) for _ in range(options)]
    logprobs[best] = source.uniform(-3, -1)
    return LabelledDecision("choice", tuple(logprobs), right)


def test_the_order_of_the_options_stays() -> None:
    """A less probable option has no larger calibrated probability, and they add up to 1."""
    curve = fit_curve(drawn(4, 300, temperature=3.0))
    source = random.Random(0)
    for _ in range(100):
        logprobs = [source.uniform(-9, 0) for _ in range(source.randint(2, 6))]
        shares = [math.exp(s) for s in log_curve_shares(curve, logprobs, is_predicate=False)]
        assert math.fsum(shares) == pytest.approx(1, abs=1e-12)
        by_model = sorted(range(len(shares)), key=logprobs.__getitem__)
        assert [shares[i] for i in by_model] == sorted(shares)


def test_a_predicate_has_a_curve_of_its_own_side() -> None:
    """A model that leans to yes is set upright, which no temperature can do."""
    lean = 3.0
    curve = fit_curve(skewed(1, 6_000, lean))
    for truth in (-2.0, 0.0, 2.0):
        yes, no = log_curve_shares(curve, (truth + lean, 0.0), is_predicate=True)
        assert math.exp(yes) + math.exp(no) == pytest.approx(1, abs=1e-12)
        assert math.exp(yes) == pytest.approx(1 / (1 + math.exp(-truth)), abs=0.06)
