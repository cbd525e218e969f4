"""From the model's log-probabilities to calibrated ones."""

from __future__ import annotations

from collections.abc import Sequence

from app.calibration.isotonic import log_curve_shares
from app.calibration.labelled import QuestionType
from app.calibration.temperature import log_softmax
from app.schemas.calibration import IsotonicMap, TemperatureMap

CalibrationMap = TemperatureMap | IsotonicMap


def log_shares(
    fitted: CalibrationMap, kind: QuestionType, logprobs: Sequence[float]
) -> list[float]:
    """Logarithms of the options' calibrated probabilities, which add up to 1.

    Args:
        fitted: to decisions of this kind.
        kind: of the question.
        logprobs: of its options; of a predicate yes, then no.
    """
    if isinstance(fitted, TemperatureMap):
        return log_softmax(logprobs, fitted.temperature)
    return log_curve_shares(fitted.points, logprobs, is_predicate=kind == "predicate")
