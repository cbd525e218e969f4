"""The bodies of POST /v1/calibrations: questions whose right answers are known."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.compat.decisions.input import InputItem
from app.compat.decisions.request import (
    MAX_OPTION_CHARS,
    AnyQuestion,
    ChoiceQuestion,
    PredicateQuestion,
    QuestionByType,
)
from app.schemas.bounds import (
    MAX_CALIBRATION_LINES,
    MAX_CALIBRATION_OPTIONS,
    MAX_MESSAGES,
    MAX_OPTIONS,
)
from app.schemas.calibration import CalibrationName
from app.schemas.conditions import Schema, given, when
from app.schemas.debias import Debias
from app.schemas.request import Request, ServingOptions, Text

LEAST_ERROR_RATE = 0.001
MOST_ERROR_RATE = 0.5


class LabelledQuestion(Request):
    """One question about one input, and its right answer."""

    input: Text | Annotated[list[InputItem], Field(max_length=MAX_MESSAGES, fail_fast=True)]
    """As in POST /v1/decisions."""
    question: QuestionByType
    """As in POST /v1/decisions."""
    answer: (
        StrictBool
        | Annotated[StrictInt, Field(ge=0, lt=MAX_OPTIONS)]
        | Annotated[StrictStr, Field(max_length=MAX_OPTION_CHARS)]
    )
    """What is right: of a predicate whether it is true, of a choice the value of one option, of a
    score the place of a level, counted from 0, or its label."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        when(
            given("question", {"properties": {"type": {"const": "predicate"}}}),
            given("answer", {"type": "boolean"}),
        ),
    )

    @field_validator("answer")
    @classmethod
    def _is_an_option(cls, answer: bool | int | str, info: ValidationInfo) -> bool | int | str:
        question = info.data.get("question")
        if question is not None and place_of(question, answer) is None:
            raise PydanticCustomError(
                "answer", "{answer} is none of its options", {"answer": repr(answer)[:100]}
            )
        return answer

    @property
    def right(self) -> int:
        """Index of the option that is right; of a predicate 0 for yes."""
        place = place_of(self.question, self.answer)
        if place is None:
            raise RuntimeError("this is a bug: the answer has been checked")
        return place


def place_of(question: AnyQuestion, answer: bool | int | str) -> int | None:
    """Index of the option that an answer names; None where it names none."""
    names: list[Any]
    if isinstance(question, PredicateQuestion):
        names = [True, False]
    elif isinstance(question, ChoiceQuestion):
        names = [choice.value for choice in question.choices]
    elif isinstance(answer, str):
        names = [level.label for level in question.levels]
    else:
        names = list(range(len(question.levels)))
    # 1 is True in Python.
    return next(
        (i for i, one in enumerate(names) if type(one) is type(answer) and one == answer), None
    )


def count_options(question: AnyQuestion) -> int:
    """How many a question has."""
    if isinstance(question, PredicateQuestion):
        return 2
    options = question.choices if isinstance(question, ChoiceQuestion) else question.levels
    return len(options)


class CalibrationRequest(ServingOptions):
    """Labelled questions, and what is to be fitted to them."""

    lines: Annotated[
        list[LabelledQuestion],
        Field(min_length=1, max_length=MAX_CALIBRATION_LINES, fail_fast=True),
    ]
    """Drawn as the questions are that will be asked, in any order, each counted as a draw of its
    own. Types of questions may be mixed; each type is fitted by itself."""
    name: CalibrationName | None = None
    """Keep it under this name, which takes an API key; null: only answer."""
    overwrite: bool = False
    """Replace the calibration of that name, if there is one."""
    method: Literal["auto", "temperature", "isotonic"] = "auto"
    """``temperature`` divides log-probabilities by a number, ``isotonic`` bends probabilities by a
    curve that never falls; ``auto`` takes, for each type, the one with the lower negative
    log-likelihood on folds held out."""
    error_rate: Annotated[float, Field(ge=LEAST_ERROR_RATE, le=MOST_ERROR_RATE)] = 0.1
    """How many prediction sets may lack the right option. Smaller ones take more lines, of each
    type ``2 / error_rate`` about."""
    debias: Debias = "none"
    """As in POST /v1/decisions; requests that use the calibration have the same."""

    @field_validator("lines")
    @classmethod
    def _have_few_options(cls, lines: list[LabelledQuestion]) -> list[LabelledQuestion]:
        if sum(count_options(line.question) for line in lines) > MAX_CALIBRATION_OPTIONS:
            raise PydanticCustomError(
                "too_many_options",
                "all questions together may have {most} options",
                {"most": MAX_CALIBRATION_OPTIONS},
            )
        return lines

    @property
    def serving_options(self) -> ServingOptions:
        """How it wants to be treated."""
        return ServingOptions(
            model=self.model,
            priority=self.priority,
            timeout_ms=self.timeout_ms,
            cache_salt=self.cache_salt,
        )

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "lines": [
                {
                    "input": text,
                    "question": {"type": "predicate", "instructions": "The customer is angry."},
                    "answer": is_angry,
                }
                for text, is_angry in (
                    ("I was charged twice and nobody answers my mails.", True),
                    ("Thank you, it works now.", False),
                )
                * 10
            ],
        },
    )
