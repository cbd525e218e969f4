"""The bodies of POST /v1/decisions, as the ``openai`` client sends them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.compat.decisions.input import MAX_PARTS, InputItem, QuestionPart, by_type
from app.compat.foreign_fields import OPENAI_DEFAULTS, ForeignRequest, Neutral, UnsupportedFields
from app.schemas.bounds import MAX_CACHE_SALT_CHARS, MAX_MESSAGES, MAX_OPTIONS, MAX_QUESTIONS
from app.schemas.calibration import CalibrationName
from app.schemas.conditions import NOT_BLANK, Schema, absent_or, given, when
from app.schemas.debias import Debias
from app.schemas.request import Request, ServingOptions, Text

MAX_NAME_CHARS = 512
MAX_OPTION_CHARS = 4_096

Instructions = Text | Annotated[list[QuestionPart], Field(max_length=MAX_PARTS, fail_fast=True)]


def _is_not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank_option", "An option is more than white space")
    return text


OptionName = Annotated[
    str, Field(min_length=1, max_length=MAX_OPTION_CHARS), AfterValidator(_is_not_blank)
]
OptionText = Annotated[OptionName, Field(json_schema_extra={"pattern": NOT_BLANK})]
Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]


class PredicateQuestion(ForeignRequest, Request):
    """How likely it is that a statement about the input is true."""

    type: Literal["predicate"]
    instructions: Instructions
    """The statement, or a question to be answered by yes or no."""
    name: Name | None = None
    """Comes back with the answer."""


class ChoiceOption(ForeignRequest, Request):
    """One of the options of a choice."""

    value: OptionText | bool
    """What is chosen, and what the model would write: text of any length, or a truth value."""
    description: Text | None = None
    """Shown to the model beside it."""


class ChoiceQuestion(ForeignRequest, Request):
    """Which of the options fits the input."""

    type: Literal["choice"]
    instructions: Instructions
    choices: Annotated[
        list[ChoiceOption], Field(min_length=2, max_length=MAX_OPTIONS, fail_fast=True)
    ]
    """All different; text and a truth value that are spelled alike differ."""
    name: Name | None = None

    @field_validator("choices")
    @classmethod
    def _all_differ(cls, choices: list[ChoiceOption]) -> list[ChoiceOption]:
        _require_distinct([(type(one.value), one.value) for one in choices])
        return choices


class Level(ForeignRequest, Request):
    """One level of a scale."""

    label: OptionText
    """What the model would write."""
    description: Text | None = None


class ScoreQuestion(ForeignRequest, Request):
    """Where the input stands on a scale."""

    type: Literal["score"]
    instructions: Instructions
    levels: Annotated[list[Level], Field(min_length=2, max_length=MAX_OPTIONS, fail_fast=True)]
    """From the lowest to the highest; their values are 0, 1, 2 and so on. All labels differ."""
    name: Name | None = None

    @field_validator("levels")
    @classmethod
    def _all_differ(cls, levels: list[Level]) -> list[Level]:
        _require_distinct([one.label for one in levels])
        return levels


def _require_distinct(values: list[Any]) -> None:
    places: dict[Any, int] = {}
    for index, value in enumerate(values):
        if places.setdefault(value, index) != index:
            raise PydanticCustomError(
                "equal_options",
                "options {first} and {second} are equal",
                {"first": places[value], "second": index},
            )


AnyQuestion = PredicateQuestion | ChoiceQuestion | ScoreQuestion
QuestionByType = Annotated[
    Annotated[PredicateQuestion, Tag("predicate")]
    | Annotated[ChoiceQuestion, Tag("choice")]
    | Annotated[ScoreQuestion, Tag("score")],
    by_type("predicate", "choice", "score"),
]


class PromptCacheOptions(ForeignRequest, Request):
    """How prompts are cached."""

    mode: Literal["implicit"] | None = None
    """The cache finds shared beginnings by itself; ``explicit`` is refused."""
    ttl: Literal["30m"] = "30m"
    """The API's only value. How long a prompt stays depends on the room in the cache."""


class DecisionRequest(UnsupportedFields, ServingOptions):
    """Questions about one input."""

    noop_values: ClassVar[Neutral] = OPENAI_DEFAULTS

    input: Text | Annotated[list[InputItem], Field(max_length=MAX_MESSAGES, fail_fast=True)]
    """What the questions are about: text, or messages."""
    questions: Annotated[
        list[QuestionByType], Field(min_length=1, max_length=MAX_QUESTIONS, fail_fast=True)
    ]
    """Each is answered by itself; the others do not change its answer."""
    debias: Debias | None = None
    """``cyclic`` shows n options in their n rotations, ``all`` up to 4 options in every order, and
    probabilities are averaged over these orders, in logarithms. Null: what the
    ``X-Chainrule-Debias`` header says, else the server's setting. None of the API's own fields."""
    calibration: CalibrationName | None = None
    """Name of a calibration of this model, which adds calibrated probabilities and prediction sets
    to the answers; null adds nothing."""
    prompt_cache_key: Annotated[str, Field(max_length=MAX_CACHE_SALT_CHARS)] | None = None
    """The same as ``cache_salt``, by the API's own name."""
    prompt_cache_options: PromptCacheOptions | None = None
    safety_identifier: Annotated[str, Field(max_length=MAX_NAME_CHARS)] | None = None
    """Accepted; without effect."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        when(
            given("prompt_cache_key", {"type": "string", "minLength": 1}),
            absent_or(cache_salt={"maxLength": 0}),
        ),
    )

    @field_validator("prompt_cache_key")
    @classmethod
    def _is_the_only_salt(cls, key: str | None, info: ValidationInfo) -> str | None:
        if key and info.data.get("cache_salt"):
            raise PydanticCustomError("second_salt", "This is cache_salt by another name; give one")
        return key

    @property
    def serving_options(self) -> ServingOptions:
        """How it wants to be treated."""
        return ServingOptions(
            model=self.model,
            priority=self.priority,
            timeout_ms=self.timeout_ms,
            cache_salt=self.prompt_cache_key or self.cache_salt,
        )

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "input": "I was charged twice and nobody answers my mails.",
            "questions": [
                {"type": "predicate", "instructions": "The customer is angry.", "name": "angry"},
                {
                    "type": "choice",
                    "instructions": "Which team should take this?",
                    "choices": [
                        {"value": "billing", "description": "Payments and refunds."},
                        {"value": "technical support"},
                    ],
                },
                {
                    "type": "score",
                    "instructions": "How urgent is it?",
                    "levels": [{"label": "low"}, {"label": "medium"}, {"label": "high"}],
                },
            ],
        },
    )
