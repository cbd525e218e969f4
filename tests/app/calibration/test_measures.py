"""How good probabilities are: scikit-learn's numbers, and cases reckoned by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from app.calibration.labelled import LabelledDecision
from app.calibration.measures import (
    BINS,
    Prediction,
    accuracy,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from app.calibration.temperature import log_softmax
from tests.app.calibration.labelled_decisions import drawn


def predictions(decisions: list[LabelledDecision]) -> list[Prediction]:
    return [Prediction(log_softmax(one.logprobs), one.right) for one in decisions]


def shares(found: list[Prediction]) -> list[list[float]]:
    return [[math.exp(share) for share in one.log_shares] for one in found]


def test_they_are_those_of_scikit_learn() -> None:
    """Log loss, Brier score, and the expected calibration error over its reliability curve."""
    found = predictions(drawn(9, 500, temperature=3.0))
    rows, right = np.array(shares(found)), [one.right for one in found]
    labels = list(range(4))
    assert negative_log_likelihood(found) == pytest.approx(log_loss(right, rows, labels=labels))
    assert brier_score(found) == pytest.approx(brier_score_loss(right, rows, labels=labels))
    confidence, hits = rows.max(axis=1), rows.argmax(axis=1) == right
    assert accuracy(found) == hits.mean()
    true, mean = calibration_curve(hits, confidence, n_bins=BINS)
    bins = reliability(found)
    assert [one.accuracy for one in bins] == pytest.approx(list(true))
    assert [one.confidence for one in bins] == pytest.approx(list(mean))
    counts, _ = np.histogram(confidence, BINS, (0, 1))
    expected = np.dot(counts[counts > 0], np.abs(true - mean)) / len(found)
    assert expected_calibration_error(bins) == pytest.approx(expected)


def test_by_hand() -> None:
    """Two decisions, one of them right at 0.8, one wrong at 0.6."""
    found = [
        Prediction([math.log(0.8), math.log(0.2)], 0),
        Prediction([math.log(0.6), math.log(0.4)], 1),
    ]
    assert negative_log_likelihood(found) == pytest.approx(-math.log(0.8 * 0.4) / 2)
    assert brier_score(found) == pytest.approx((2 * 0.04 + 2 * 0.36) / 2)
    assert expected_calibration_error(reliability(found)) == pytest.approx((0.2 + 0.6) / 2)
    assert accuracy(found) == 0.5


def test_what_is_certain_and_right_is_perfect() -> None:
    """All three are 0, and an impossible option does no harm."""
    found = [Prediction([0.0, -math.inf], 0)]
    assert negative_log_likelihood(found) == brier_score(found) == 0
    assert expected_calibration_error(reliability(found)) == 0
