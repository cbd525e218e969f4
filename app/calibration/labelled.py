"""A question whose right answer is known, as the model has scored it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

QuestionType = Literal["predicate", "choice", "score"]
QUESTION_TYPES: Final[tuple[QuestionType, ...]] = get_args(QuestionType)


@dataclass(frozen=True, slots=True)
class LabelledDecision:
    """One labelled question.

    Attributes:
        kind: of the question; each kind is calibrated by itself.
        logprobs: natural log-probabilities of the options, not normalized over them, all finite;
            of a predicate yes, then no.
        right: index of the option that is right.
    """

    kind: QuestionType
    logprobs: tuple[float, ...]
    right: int
