"""The bodies of POST /v1/systemone, as its clients send them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal
from unicodedata import normalize

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    Tag,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.compat.decisions.input import by_type
from app.compat.decisions.request import MAX_NAME_CHARS, MAX_OPTION_CHARS, OptionName
from app.compat.foreign_fields import ForeignRequest
from app.compat.systemone.content import SAYS, AnyContent, Content, content_text, is_blank
from app.schemas.bounds import MAX_OPTIONS, MAX_QUESTIONS
from app.schemas.calibration import CalibrationName
from app.schemas.conditions import NOT_BLANK, Schema, any_of, given
from app.schemas.debias import Debias
from app.schemas.request import Request, ServingOptions

DEFAULT_MODEL: Final = "jev-latest"
"""What clients send who were told no name: whatever is served."""


_OPTION_NAMES: Final[dict[str, JsonValue]] = {
    "minLength": 1,
    "maxLength": MAX_OPTION_CHARS,
    "pattern": NOT_BLANK,
}
_DESCRIBED: Final = any_of(given("true", SAYS), given("false", SAYS))


class Outcomes(ForeignRequest, Request):
    """When the answer is yes, and when it is no."""

    true: AnyContent | None = None
    false: AnyContent | None = None


class NamedNoul(ForeignRequest, Request):
    """How likely yes is: whether a statement holds, or the answer to a question."""

    type: Literal["noul"]
    instructions: AnyContent | None = None
    """The statement or the question."""
    criteria: Outcomes | None = None
    """Shown beside yes and no. Without ``instructions`` one of them says what is asked; white space
    and what is empty says nothing."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        any_of(
            given("instructions", SAYS),
            given("criteria", {"type": "object", **_DESCRIBED}),
        ),
    )

    @model_validator(mode="after")
    def _asks_something(self) -> NamedNoul:
        outcomes = self.criteria or Outcomes()
        if all(map(is_blank, (self.instructions, outcomes.true, outcomes.false))):
            raise PydanticCustomError(
                "nothing_asked", "Give instructions, or criteria for true or for false"
            )
        return self


class NamedChoice(ForeignRequest, Request):
    """Which of the options fits."""

    type: Literal["choice"]
    instructions: AnyContent | None = None
    criteria: Annotated[
        dict[OptionName, AnyContent | None],
        Field(
            min_length=1,
            max_length=MAX_OPTIONS,
            json_schema_extra={"propertyNames": _OPTION_NAMES},
        ),
    ]
    """The options in their order, each with what is shown beside it, or null."""


class NamedScore(ForeignRequest, Request):
    """Which level of a scale it is."""

    type: Literal["score"]
    instructions: AnyContent | None = None
    criteria: Annotated[
        list[AnyContent],
        Field(
            min_length=1,
            max_length=MAX_OPTIONS,
            fail_fast=True,
            json_schema_extra={"contains": SAYS},
        ),
    ]
    """What each level means, from the lowest, which is 0, to the highest. All differ, in more than
    white space around them and their Unicode form, and one of them at most says nothing."""

    @field_validator("criteria")
    @classmethod
    def _all_differ(cls, criteria: list[Content]) -> list[Content]:
        places: dict[str, int] = {}
        for index, level in enumerate(criteria):
            text = normalize("NFC", content_text(level)).strip()
            first = places.setdefault(text, index)
            if is_blank(level):
                first = min(first, places.setdefault("", index))
            if first != index:
                raise PydanticCustomError(
                    "equal_options",
                    "levels {first} and {second} cannot be told apart",
                    {"first": first, "second": index},
                )
        if all(map(is_blank, criteria)):
            raise PydanticCustomError("nothing_asked", "Say what the level means")
        return criteria


def _refuse_box(value: object) -> object:
    if isinstance(value, dict) and value.get("type") == "box":
        raise PydanticCustomError("unserved_question", "box is refused: images are not read here")
    return value


AnyQuestion = NamedNoul | NamedChoice | NamedScore
QuestionByType = Annotated[
    Annotated[NamedNoul, Tag("noul")]
    | Annotated[NamedChoice, Tag("choice")]
    | Annotated[NamedScore, Tag("score")],
    by_type("noul", "choice", "score"),
    BeforeValidator(_refuse_box),
]
Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]

_ONE_QUESTION: TypeAdapter[dict[str, AnyQuestion]] = TypeAdapter(
    dict[Name, QuestionByType], config=ConfigDict(strict=True)
)


def _one_by_one(value: object) -> object:
    """The questions, up to the first bad one: hundreds of others would add a complaint each."""
    if not isinstance(value, dict) or len(value) > MAX_QUESTIONS:
        return value
    read: dict[str, AnyQuestion] = {}
    for name, question in value.items():
        read |= _ONE_QUESTION.validate_python({name: question})
    return read


def _refuse_assets(value: object) -> object:
    if value in (None, {}):
        return None
    raise PydanticCustomError("image", "images are not read here")


_Nothing = Annotated[dict[str, JsonValue], Field(max_length=0)]


class SystemOneRequest(ServingOptions):
    """Named questions about one state. Further keys have no effect."""

    model_config = ConfigDict(extra="ignore")

    state: AnyContent
    """What the questions are about; it may be empty."""
    questions: Annotated[
        dict[Name, QuestionByType],
        Field(min_length=1, max_length=MAX_QUESTIONS),
        BeforeValidator(_one_by_one),
    ]
    """Each is answered by itself, under its name; the others do not change its answer."""
    assets: Annotated[
        None,
        BeforeValidator(_refuse_assets, json_schema_input_type=_Nothing | None),
    ] = None
    """Not served: images are not read here."""
    debias: Debias | None = None
    """Orders in which options are shown, as on /v1/decisions. Null: what the ``X-Chainrule-Debias``
    header says, else the server's setting."""
    calibration: CalibrationName | None = None
    """Name of a calibration, as on /v1/decisions. Null: what the ``X-Chainrule-Calibration`` header
    says, if there is one."""

    @property
    def serving_options(self) -> ServingOptions:
        """How it wants to be treated. ``DEFAULT_MODEL`` is whatever is served."""
        return ServingOptions(
            model=None if self.model == DEFAULT_MODEL else self.model,
            priority=self.priority,
            timeout_ms=self.timeout_ms,
            cache_salt=self.cache_salt,
        )

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "model": DEFAULT_MODEL,
            "state": {"subject": "Invoice", "text": "I was charged twice and nobody answers."},
            "questions": {
                "angry": {"type": "noul", "instructions": "The customer is angry."},
                "team": {
                    "type": "choice",
                    "instructions": "Which team should take this?",
                    "criteria": {"billing": "Payments and refunds.", "technical support": None},
                },
                "urgency": {
                    "type": "score",
                    "instructions": "How urgent is it?",
                    "criteria": ["It can wait.", "This week.", "Today."],
                },
            },
        },
    )
