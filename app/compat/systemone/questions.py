"""The questions of POST /v1/systemone, and its answers, in the words of ``app.decisions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.calibration.decision import CalibratedDecision
from app.compat.systemone.content import Content, content_text, is_blank
from app.compat.systemone.request import (
    AnyQuestion,
    NamedChoice,
    NamedNoul,
    SystemOneRequest,
)
from app.compat.systemone.response import (
    Answer,
    NamedChoiceAnswer,
    NamedNoulAnswer,
    NamedScoreAnswer,
    NoulOrders,
    OptionOrders,
    ProbabilityRange,
)
from app.decisions.answers import Decision
from app.decisions.orders import OrderRange
from app.decisions.prompts import NO, YES
from app.decisions.question import Option, Question
from app.errors.validation import shown_key


def questions_of(request: SystemOneRequest) -> list[Question]:
    """What is asked, in the request's order. The model writes a level as its index, beside which
    it is shown: levels are descriptions, and a long one would be less likely for its length."""
    return [_question(name, question) for name, question in request.questions.items()]


def answer_to(
    question: AnyQuestion, decision: Decision, calibrated: CalibratedDecision | None
) -> Answer:
    """What was decided, in the API's shape.

    Args:
        calibrated: what a calibration adds; None where there is none.
    """
    shares = decision.probabilities
    if isinstance(question, NamedNoul):
        added = {} if calibrated is None else _set_of([True, False], calibrated)
        if calibrated is not None:
            added["calibrated_probability"] = calibrated.probabilities[0]
        return NamedNoulAnswer(noul=shares[0], orders=_noul_orders(decision.orders), **added)
    if isinstance(question, NamedChoice):
        options = list(question.criteria)
        return NamedChoiceAnswer(
            choice=options[decision.best],
            confidence=decision.confidence,
            probabilities=dict(zip(options, shares, strict=True)),
            orders=_option_orders(options, decision.orders),
            **_calibrated(options, options, calibrated),
        )
    levels = [str(index) for index in range(len(question.criteria))]
    return NamedScoreAnswer(
        score=decision.mean_index,
        confidence=decision.confidence,
        legend=dict(zip(levels, question.criteria, strict=True)),
        probabilities=dict(zip(levels, shares, strict=True)),
        orders=_option_orders(levels, decision.orders),
        **_calibrated(levels, range(len(levels)), calibrated),
    )


def _question(name: str, question: AnyQuestion) -> Question:
    instructions, param = _shown(question.instructions), f"questions.{shown_key(name)}"
    if isinstance(question, NamedNoul):
        yes = no = None
        if question.criteria is not None:
            yes, no = question.criteria.true, question.criteria.false
        outcomes = (Option(YES, _shown(yes)), Option(NO, _shown(no)))
        return Question("predicate", instructions, outcomes, param)
    if isinstance(question, NamedChoice):
        options = [Option(text, _shown(beside)) for text, beside in question.criteria.items()]
        return Question("choice", instructions, tuple(options), param)
    levels = [Option(str(index), _shown(level)) for index, level in enumerate(question.criteria)]
    return Question("score", instructions, tuple(levels), param)


def _calibrated(
    keys: Sequence[str], values: Sequence[Any], calibrated: CalibratedDecision | None
) -> dict[str, Any]:
    """What a calibration adds to an answer whose options have these keys, and in its set values."""
    if calibrated is None:
        return {}
    shares = dict(zip(keys, calibrated.probabilities, strict=True))
    return {"calibrated_probabilities": shares, **_set_of(values, calibrated)}


def _set_of(values: Sequence[Any], calibrated: CalibratedDecision) -> dict[str, Any]:
    return {"set": [values[index] for index in calibrated.chosen], "abstain": calibrated.abstain}


def _shown(content: Content | None) -> str | None:
    """The text of what says anything; the rest is as if it were absent."""
    return None if content is None or is_blank(content) else content_text(content)


def _noul_orders(orders: OrderRange | None) -> NoulOrders | None:
    if orders is None:
        return None
    return NoulOrders(
        count=orders.count,
        flipped=orders.flipped,
        range=ProbabilityRange(lowest=orders.lowest[0], highest=orders.highest[0]),
    )


def _option_orders(names: list[str], orders: OrderRange | None) -> OptionOrders | None:
    if orders is None:
        return None
    ranges = zip(names, orders.lowest, orders.highest, strict=True)
    return OptionOrders(
        count=orders.count,
        flipped=orders.flipped,
        ranges={name: ProbabilityRange(lowest=low, highest=high) for name, low, high in ranges},
    )
