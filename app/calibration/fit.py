"""A calibration from labelled decisions.

Decisions of one type are split into two halves. The first one decides between the methods, by the
negative log-likelihood of cross-validation, and the map is fitted to it. The threshold of the sets
is from the second half, which neither has seen: that is what its guarantee rests on. How good it
is says each half, predicted by the map of this one method that fits the other half.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from app.calibration.conformal import fit_threshold, least_decisions, prediction_set
from app.calibration.folds import FOLDS, folds, halves
from app.calibration.isotonic import fit_curve
from app.calibration.labelled import QUESTION_TYPES, LabelledDecision, QuestionType
from app.calibration.map import CalibrationMap, log_shares
from app.calibration.measures import (
    Bin,
    Prediction,
    accuracy,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from app.calibration.temperature import fit_temperature, log_softmax
from app.schemas.calibration import (
    IsotonicMap,
    Quality,
    QuestionCalibration,
    QuestionCalibrations,
    ReliabilityBin,
    TemperatureMap,
)
from model_runtime import InvalidQuery

Method = Literal["temperature", "isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)


def fit_questions(
    decisions: Sequence[LabelledDecision], method: Method | None, error_rate: float
) -> QuestionCalibrations:
    """What fits the decisions of each type.

    Args:
        decisions: of any types, in any order.
        method: None takes, for each type, the one that is better on folds held out.
        error_rate: how many sets may lack the right option.

    Raises:
        InvalidQuery: there are too few decisions of a type.
    """
    fitted: dict[str, QuestionCalibration] = {}
    for kind in QUESTION_TYPES:
        if own := [one for one in decisions if one.kind == kind]:
            _check_count(kind, len(own), error_rate)
            fitted[kind] = _fit_type(own, method, error_rate)
    return QuestionCalibrations(**fitted)


def check_counts(kinds: Iterable[QuestionType], error_rate: float) -> None:
    """See that ``fit_questions`` takes so many decisions of these types.

    Raises:
        InvalidQuery: there are too few of one.
    """
    for kind, count in Counter(kinds).items():
        _check_count(kind, count, error_rate)


def fit_map(decisions: Sequence[LabelledDecision], method: Method) -> CalibrationMap:
    """The map of this method that fits best."""
    if method == "isotonic":
        return IsotonicMap(points=fit_curve(decisions))
    return TemperatureMap(temperature=fit_temperature(decisions))


def choose_method(decisions: Sequence[LabelledDecision]) -> Method:
    """The method with the lower negative log-likelihood on folds held out; of equals the first."""
    costs = {method: _held_out(decisions, method) for method in METHODS}
    return min(METHODS, key=costs.__getitem__)


def _held_out(decisions: Sequence[LabelledDecision], method: Method) -> float:
    found: list[Prediction] = []
    for rest, part in folds(decisions):
        found += _predicted(fit_map(rest, method), part)
    return negative_log_likelihood(found)


def _check_count(kind: QuestionType, count: int, error_rate: float) -> None:
    needed = 2 * max(FOLDS, least_decisions(error_rate))
    if count < needed:
        raise InvalidQuery(
            f"{count} of type {kind} are too few: an error rate of {error_rate!r} takes "
            f"{needed} labelled questions of each type that there is",
            "lines",
        )


def _fit_type(
    decisions: Sequence[LabelledDecision], method: Method | None, error_rate: float
) -> QuestionCalibration:
    first, second = halves(decisions)
    chosen = method or choose_method(first)
    fitted, other = (fit_map(half, chosen) for half in (first, second))
    of_second = _predicted(fitted, second)
    right = [math.exp(one.log_shares[one.right]) for one in of_second]
    threshold = fit_threshold(right, error_rate)
    sizes = [len(prediction_set(list(map(math.exp, o.log_shares)), threshold)) for o in of_second]
    before = [Prediction(log_softmax(one.logprobs), one.right) for one in decisions]
    after = _predicted(other, first) + of_second
    return QuestionCalibration(
        lines=len(decisions),
        map=fitted,
        threshold=threshold,
        accuracy=accuracy(before),
        before=_quality(before),
        after=_quality(after),
        set_size=sum(sizes) / len(sizes),
        abstained=sum(size != 1 for size in sizes) / len(sizes),
        reliability_before=_bins(reliability(before)),
        reliability_after=_bins(reliability(after)),
    )


def _predicted(fitted: CalibrationMap, decisions: Sequence[LabelledDecision]) -> list[Prediction]:
    return [Prediction(log_shares(fitted, one.kind, one.logprobs), one.right) for one in decisions]


def _quality(predictions: Sequence[Prediction]) -> Quality:
    return Quality(
        nll=negative_log_likelihood(predictions),
        brier=brier_score(predictions),
        ece=expected_calibration_error(reliability(predictions)),
    )


def _bins(bins: Sequence[Bin]) -> list[ReliabilityBin]:
    return [
        ReliabilityBin(count=one.count, confidence=one.confidence, accuracy=one.accuracy)
        for one in bins
    ]
