"""What a calibration says of a decision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.calibration.conformal import prediction_set
from app.calibration.labelled import QuestionType
from app.calibration.map import log_shares
from app.calibration.store import CalibrationStore
from app.decisions.answers import Decision
from app.decisions.question import Question
from app.decisions.template import PROMPT_TEMPLATE
from app.errors.table import CalibrationMismatch
from app.schemas.calibration import Calibration, QuestionCalibration
from app.schemas.debias import Debias
from model_runtime import InvalidQuery, ModelInfo


@dataclass(frozen=True, slots=True)
class CalibratedDecision:
    """What is added to the answer to one question.

    Attributes:
        probabilities: calibrated, in the options' order; they add up to 1.
        chosen: indices of the options in the prediction set, in order.
    """

    probabilities: tuple[float, ...]
    chosen: tuple[int, ...]

    @property
    def abstain(self) -> bool:
        """Whether the set is not a single option: several may be right, or none is likely."""
        return len(self.chosen) != 1


@dataclass(frozen=True, slots=True)
class NamedCalibration:
    """A calibration that has been found to fit a request.

    Attributes:
        name: by which the request asked for it.
        calibration: of this model, these prompts and this ``debias``.
    """

    name: str
    calibration: Calibration

    def calibrate(self, kind: QuestionType, logprobs: Sequence[float]) -> CalibratedDecision:
        """What it says of one decision.

        Args:
            kind: of the question; one that ``check_questions`` has let pass.
            logprobs: of its options, averaged over their orders, not normalized; of a predicate
                yes, then no.
        """
        fitted = self._of(kind)
        if fitted is None:
            raise RuntimeError(f"this is a bug: {self.name} was not checked for {kind}")
        shares = log_shares(fitted.map, kind, logprobs)
        found = tuple(map(math.exp, shares))
        return CalibratedDecision(found, prediction_set(found, fitted.threshold))

    def check_questions(self, questions: Iterable[Question]) -> None:
        """See that every question is of a type that it was fitted to.

        Raises:
            InvalidQuery: one is not; it names the question.
        """
        for one in questions:
            if self._of(one.kind) is None:
                raise InvalidQuery(
                    f"calibration {self.name!r} was fitted to no question of type {one.kind}",
                    one.param,
                )

    def _of(self, kind: QuestionType) -> QuestionCalibration | None:
        found: QuestionCalibration | None = getattr(self.calibration.questions, kind)
        return found


def find_calibration(
    store: CalibrationStore, name: str | None, info: ModelInfo, debias: Debias
) -> NamedCalibration | None:
    """The calibration that a request names, which is of answers like its own; None for no name.

    Raises:
        CalibrationNotFound: there is none of this name.
        CalibrationMismatch: it was fitted to answers of another model, to other prompts, or with
            another ``debias``.
    """
    if name is None:
        return None
    calibration = store.find(name)
    for what, own, other in (
        ("fingerprint", calibration.fingerprint, info.fingerprint),
        ("prompt_template", calibration.prompt_template, PROMPT_TEMPLATE),
        ("debias", calibration.debias, debias),
    ):
        if own != other:
            raise CalibrationMismatch(
                f"calibration {name!r} is of another {what}: {own}; here it is {other}",
                "calibration",
            )
    return NamedCalibration(name, calibration)


def calibrated(
    calibration: NamedCalibration | None,
    questions: Sequence[Question],
    decisions: Sequence[Decision],
) -> list[CalibratedDecision | None]:
    """What is added to each answer; None where there is no calibration."""
    if calibration is None:
        return [None] * len(decisions)
    return [
        calibration.calibrate(question.kind, decision.logprobs)
        for question, decision in zip(questions, decisions, strict=True)
    ]
