"""The questions of POST /v1/decisions, and its answers, in the words of ``app.decisions``."""

from __future__ import annotations

from collections.abc import Sequence

from app.calibration.decision import CalibratedDecision
from app.compat.decisions.input import AnyPart, InputMessage
from app.compat.decisions.request import (
    AnyQuestion,
    ChoiceQuestion,
    DecisionRequest,
    PredicateQuestion,
)
from app.compat.decisions.response import (
    Answer,
    CalibratedAnswer,
    CalibratedChoiceAnswer,
    CalibratedChoiceOrdersAnswer,
    CalibratedLevel,
    CalibratedOption,
    CalibratedPredicateAnswer,
    CalibratedPredicateOrdersAnswer,
    CalibratedScoreAnswer,
    CalibratedScoreOrdersAnswer,
    ChoiceAnswer,
    ChoiceOrdersAnswer,
    LevelProbability,
    OptionProbability,
    OrderRanges,
    OrdersAnswer,
    PredicateAnswer,
    PredicateOrdersAnswer,
    ScoreAnswer,
    ScoreOrdersAnswer,
    ShareRange,
)
from app.decisions.answers import Decision
from app.decisions.orders import OrderRange
from app.decisions.prompts import NO, YES
from app.decisions.question import Option, Question


def input_text(request: DecisionRequest) -> str:
    """What the questions are about. Messages are told apart by a line with their role."""
    if isinstance(request.input, str):
        return request.input
    return "\n\n".join(map(_message_text, request.input))


def questions_of(request: DecisionRequest) -> list[Question]:
    """What is asked, in the request's order."""
    return [_question(question, place) for place, question in enumerate(request.questions)]


def answer_to(question: AnyQuestion, decision: Decision) -> Answer | OrdersAnswer:
    """What was decided, in the API's shape."""
    answer = _answer(question, decision)
    if decision.orders is None:
        return answer
    options = 1 if isinstance(answer, PredicateAnswer) else len(decision.probabilities)
    fields = {**dict(answer), "orders": _ranges(decision.orders, options)}
    if isinstance(answer, PredicateAnswer):
        return PredicateOrdersAnswer(**fields)
    if isinstance(answer, ChoiceAnswer):
        return ChoiceOrdersAnswer(**fields)
    return ScoreOrdersAnswer(**fields)


def calibrated_answer(
    answer: Answer | OrdersAnswer, calibrated: CalibratedDecision | None
) -> Answer | OrdersAnswer | CalibratedAnswer:
    """The answer with what a calibration adds; as it is, where there is none."""
    if calibrated is None:
        return answer
    fields = {**dict(answer), "abstain": calibrated.abstain}
    if isinstance(answer, PredicateAnswer):
        fields["calibrated_probability"] = calibrated.probabilities[0]
        fields["set"] = [index == 0 for index in calibrated.chosen]
        in_orders = isinstance(answer, PredicateOrdersAnswer)
        return (CalibratedPredicateOrdersAnswer if in_orders else CalibratedPredicateAnswer)(
            **fields
        )
    option = CalibratedOption if isinstance(answer, ChoiceAnswer) else CalibratedLevel
    fields["probabilities"] = [
        option(**dict(one), calibrated_probability=share)
        for one, share in zip(answer.probabilities, calibrated.probabilities, strict=True)
    ]
    fields["set"] = [answer.probabilities[index].value for index in calibrated.chosen]
    if isinstance(answer, ChoiceAnswer):
        in_orders = isinstance(answer, ChoiceOrdersAnswer)
        return (CalibratedChoiceOrdersAnswer if in_orders else CalibratedChoiceAnswer)(**fields)
    in_orders = isinstance(answer, ScoreOrdersAnswer)
    return (CalibratedScoreOrdersAnswer if in_orders else CalibratedScoreAnswer)(**fields)


def _answer(question: AnyQuestion, decision: Decision) -> Answer:
    shares = decision.probabilities
    if isinstance(question, PredicateQuestion):
        return PredicateAnswer(name=question.name, probability=shares[0])
    if isinstance(question, ChoiceQuestion):
        values = [choice.value for choice in question.choices]
        return ChoiceAnswer(
            name=question.name,
            choice=values[decision.best],
            confidence=decision.confidence,
            probabilities=[
                OptionProbability(value=value, probability=share)
                for value, share in zip(values, shares, strict=True)
            ],
        )
    return ScoreAnswer(
        name=question.name,
        score=decision.mean_index,
        confidence=decision.confidence,
        probabilities=[
            LevelProbability(value=value, label=level.label, probability=share)
            for value, (level, share) in enumerate(zip(question.levels, shares, strict=True))
        ],
    )


def _ranges(orders: OrderRange, options: int) -> OrderRanges:
    """Those of the first options."""
    ranges = [
        ShareRange(lowest=lowest, highest=highest)
        for lowest, highest in zip(orders.lowest, orders.highest, strict=True)
    ]
    return OrderRanges(count=orders.count, flipped=orders.flipped, ranges=ranges[:options])


def _question(question: AnyQuestion, place: int) -> Question:
    instructions, param = _joined(question.instructions), f"questions.{place}"
    if isinstance(question, PredicateQuestion):
        return Question("predicate", instructions, (Option(YES), Option(NO)), param)
    if isinstance(question, ChoiceQuestion):
        texts = _texts([choice.value for choice in question.choices])
        options = [
            Option(text, choice.description)
            for text, choice in zip(texts, question.choices, strict=True)
        ]
        return Question("choice", instructions, tuple(options), param)
    levels = [Option(level.label, level.description) for level in question.levels]
    return Question("score", instructions, tuple(levels), param)


def _texts(values: Sequence[str | bool]) -> list[str]:
    """What the model would write for each value of a choice; no two are the same.

    Truth values are ``true`` and ``false``. Where a text is spelled alike, all texts of the
    question stand in quotation marks.
    """
    texts = [value if isinstance(value, str) else str(value).lower() for value in values]
    if len(set(texts)) == len(texts):
        return texts
    return [
        f'"{text}"' if isinstance(value, str) else text
        for text, value in zip(texts, values, strict=True)
    ]


def _message_text(message: InputMessage) -> str:
    phase = "" if message.phase is None else f", {message.phase}"
    return f"[{message.role}{phase}]\n{_joined(message.content)}"


def _joined(content: str | Sequence[AnyPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
