"""Labelled decisions whose miscalibration is known, because they are drawn from it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from app.calibration.fit import fit_questions
from app.calibration.labelled import LabelledDecision, QuestionType
from app.decisions.template import PROMPT_TEMPLATE
from app.schemas.calibration import Calibration


def softmax(values: list[float]) -> list[float]:
    """Plainly."""
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / sum(weights) for weight in weights]


def drawn(
    seed: int,
    count: int,
    *,
    temperature: float = 1.0,
    options: Callable[[random.Random], int] = lambda _: 4,
    kind: QuestionType = "choice",
    spread: float = 2.0,
) -> list[LabelledDecision]:
    """Decisions of a model that is too sure by a factor of ``temperature``.

    The right option is drawn from the true probabilities. The model's log-probabilities are
    those, times the factor, and less a constant that differs from decision to decision.
    """
    source = random.Random(seed)
    found = []
    for _ in range(count):
        truth = [source.gauss(0, spread) for _ in range(options(source))]
        (right,) = source.choices(range(len(truth)), softmax(truth))
        shift = source.uniform(5, 40)
        found.append(
            LabelledDecision(kind, tuple(temperature * one - shift for one in truth), right)
        )
    return found


def skewed(seed: int, count: int, lean: float = 3.0) -> list[LabelledDecision]:
    """Predicates of a model that knows the truth and leans to yes."""
    found = []
    for one in drawn(seed, count, options=lambda _: 2, kind="predicate"):
        yes, no = one.logprobs
        found.append(LabelledDecision("predicate", (yes + lean, no), one.right))
    return found


def calibration(
    decisions: list[LabelledDecision], error_rate: float = 0.1, **fields: str
) -> Calibration:
    """What fits the decisions of a model called toy."""
    return Calibration(
        model="toy",
        fingerprint="f",
        prompt_template=PROMPT_TEMPLATE,
        debias="none",
        error_rate=error_rate,
        questions=fit_questions(decisions, None, error_rate),
    ).model_copy(update=fields)
