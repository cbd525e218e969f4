"""Temperature scaling: what it recovers, and what scikit-learn makes of the same numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from app.calibration.fit import Method, choose_method, fit_map
from app.calibration.labelled import LabelledDecision
from app.calibration.map import CalibrationMap, log_shares
from app.calibration.measures import Prediction, negative_log_likelihood
from app.calibration.temperature import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    PSEUDO_DECISIONS,
    fit_temperature,
    log_softmax,
)
from tests.app.calibration.labelled_decisions import drawn


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose decision function is what it is given."""

    classes_ = np.arange(4)

    def fit(self, _x: Any, _y: Any) -> Given:
        return self

    def predict(self, x: Any) -> Any:
        return x.argmax(axis=1)

    def decision_function(self, x: Any) -> Any:
        return x

    def __sklearn_is_fitted__(self) -> bool:
        return True


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 9.0])
def test_the_factor_that_was_planted_is_recovered(temperature: float) -> None:
    """Within four standard errors: 4 / sqrt(n * Fisher information), reckoned from the truth."""
    decisions = drawn(7, 4_000, temperature=temperature, options=lambda r: r.randint(2, 9))
    information = 0.0
    for one in decisions:
        shares = [math.exp(share) for share in log_softmax(one.logprobs, temperature)]
        true = [logprob / temperature for logprob in one.logprobs]
        mean = sum(p * t for p, t in zip(shares, true, strict=True))
        information += sum(p * (t - mean) ** 2 for p, t in zip(shares, true, strict=True))
    error = 4 * temperature / math.sqrt(information)
    assert error < 0.12 * temperature
    assert fit_temperature(decisions) == pytest.approx(temperature, abs=error)


@pytest.mark.filterwarnings("ignore:Since FrozenEstimator does not appear to accept sample_weight")
@pytest.mark.parametrize("count", [9, 600])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_probabilities_are_those_of_scikit_learn(temperature: float, count: int) -> None:
    """Its own optimizer, over the same log-probabilities, where each decision stands four times
    more: with each option as the right one, weighed by what the model itself says."""
    decisions = drawn(3, count, temperature=temperature)
    logits = np.array([one.logprobs for one in decisions])
    right = np.array([one.right for one in decisions])
    own = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    oracle = CalibratedClassifierCV(FrozenEstimator(Given()), method="temperature")
    oracle.fit(
        np.concatenate([logits, *[logits] * 4]),
        np.concatenate([right, *(np.full(count, option) for option in range(4))]),
        sample_weight=np.concatenate([np.ones(count), own.T.ravel() * PSEUDO_DECISIONS / count]),
    )
    expected = oracle.predict_proba(logits)
    found = fit_temperature(decisions)
    shares = [[math.exp(s) for s in log_softmax(one.logprobs, found)] for one in decisions]
    assert np.abs(expected - np.array(shares)).max() < 1e-6


def test_nothing_nearby_is_better() -> None:
    """It is a minimum, as the log-likelihood at other temperatures says, with the prior's part."""
    decisions = drawn(5, 200, temperature=4.0)
    found = fit_temperature(decisions)

    def cost(temperature: float) -> float:
        prior, labels = 0.0, []
        for one in decisions:
            shares = log_softmax(one.logprobs, temperature)
            own = map(math.exp, log_softmax(one.logprobs))
            prior -= sum(p * share for p, share in zip(own, shares, strict=True)) / 200
            labels.append(Prediction(shares, one.right))
        return 200 * negative_log_likelihood(labels) + PSEUDO_DECISIONS * prior

    assert cost(found) < min(cost(found * 1.01), cost(found / 1.01), cost(1.0))


@pytest.mark.parametrize("count", [1, 9, 200])
def test_labels_that_are_all_right_follow_the_rule_of_succession(count: int) -> None:
    """Of n right out of n, where the model hardly tells the options apart: (n + 1) / (n + 2)."""
    always = [LabelledDecision("predicate", (-1.0, -1.5), 0)] * count
    found = math.exp(log_softmax((-1.0, -1.5), fit_temperature(always))[0])
    own = 1 / (1 + math.exp(-0.5))
    assert found == pytest.approx((count + 2 * own) / (count + 2), abs=1e-9)


@pytest.mark.parametrize("spread", [1.0, 4.0, 12.0])
@pytest.mark.parametrize("count", [9, 20])
@pytest.mark.parametrize("method", ["temperature", None])
def test_a_few_labels_spoil_no_calibrated_model(
    method: Method | None, count: int, spread: float
) -> None:
    """Its probabilities are the true ones; what is fitted to n of its decisions costs 1 / n nats on
    average at most, reckoned with the truth and not with more labels."""
    fresh = drawn(999, 60, spread=spread)
    costs = []
    for seed in range(60):
        decisions = drawn(seed, count, spread=spread)
        fitted = fit_map(decisions, method or choose_method(decisions))
        costs += [_divergence(fitted, one.logprobs) for one in fresh]
    assert sum(costs) / len(costs) < 1 / count


def _divergence(fitted: CalibrationMap, logprobs: tuple[float, ...]) -> float:
    """By how much the expected negative log-likelihood exceeds the least one, in nats."""
    true, found = log_softmax(logprobs), log_shares(fitted, "choice", logprobs)
    return sum(math.exp(one) * (one - other) for one, other in zip(true, found, strict=True))


def test_where_no_number_is_the_best_it_stays_within_its_bounds() -> None:
    """Many right by little: the smaller the better. All wrong: the larger the better. No
    difference: 1."""
    always = [LabelledDecision("choice", (-1.0, -1.01, -1.02), 0)] * 20
    never = [LabelledDecision("choice", (-1.0, -2.0, -4.0), 2)] * 20
    level = [LabelledDecision("choice", (-3.0, -3.0), 1)] * 20
    assert fit_temperature(always) == pytest.approx(LEAST_TEMPERATURE, rel=1e-9)
    assert fit_temperature(never) == pytest.approx(MOST_TEMPERATURE, rel=1e-9)
    assert fit_temperature(level) == 1.0


def test_extreme_log_probabilities_do_not_overflow() -> None:
    """Long options differ by hundreds of nats; the impossible keeps no probability."""
    far = [LabelledDecision("choice", (-5_000.0, -10.0, -900.0), 0)]
    assert fit_temperature([*far, *drawn(1, 50)]) > 1
    assert log_softmax((-2.0, -math.inf), 3.0) == [0.0, -math.inf]
    assert math.fsum(map(math.exp, log_softmax((-700.0, -701.0, -2_000.0)))) == pytest.approx(1)
