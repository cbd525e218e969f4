"""POST /v1/completions as OpenAI's clients speak it: the request.

What is asked for and not served is refused by name; it is never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, cast

from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.compat.foreign_fields import (
    COMPLETION_DEFAULTS,
    ForeignRequest,
    Neutral,
    Priority,
    UnsupportedFields,
    require_neutral,
)
from app.compat.openai.prompt_logprobs import PromptLogprobsCount
from app.compat.openai.response_format import ResponseFormat
from app.compat.openai.token_fields import TokenFields
from app.schemas.bounds import (
    MAX_BEAMS,
    MAX_GRAMMAR_BEAMS,
    MAX_NEW_TOKENS,
    MAX_PROMPTS,
    MAX_SEED,
    MAX_TOP_LOGPROBS,
    MAX_USER_CHARS,
)
from app.schemas.conditions import OFF, UNSET, Schema, absent_or, any_of, given, when
from app.schemas.decode import Stop
from app.schemas.request import Request, ServingOptions, Text, TokenIds

DEFAULT_TOKENS: Final = 16
"""What OpenAI generates where nothing is said."""

_MANY: Final = {"min_length": 1, "max_length": MAX_PROMPTS, "fail_fast": True}
Texts = Annotated[list[Text], Field(**_MANY)]
IdLists = Annotated[list[TokenIds], Field(**_MANY)]

_STRICT = ConfigDict(strict=True)
_TEXT: TypeAdapter[str] = TypeAdapter(Text, config=_STRICT)
_TEXTS: TypeAdapter[list[str]] = TypeAdapter(Texts, config=_STRICT)
_IDS: TypeAdapter[list[int]] = TypeAdapter(TokenIds, config=_STRICT)
_ID_LISTS: TypeAdapter[list[list[int]]] = TypeAdapter(IdLists, config=_STRICT)


# The first entry decides what a list is: a union would complain of every branch.
def _read_prompt(value: object) -> object:
    if isinstance(value, str):
        return _TEXT.validate_python(value)
    if not isinstance(value, list):
        raise PydanticCustomError(
            "prompt_type", "Input should be text, token ids, or a list of either"
        )
    if not value or isinstance(value[0], str):
        return _TEXTS.validate_python(value)
    return (_ID_LISTS if isinstance(value[0], list) else _IDS).validate_python(value)


Prompts = Annotated[
    str | list[int] | list[str] | list[list[int]],
    PlainValidator(_read_prompt, json_schema_input_type=Text | TokenIds | Texts | IdLists),
]

_NOT_SERVED: Final = {
    "suffix": "empty: text is not inserted here",
    "temperature": "0: nothing is sampled here, the most probable completion is searched",
    "frequency_penalty": "0: log-probabilities are the model's own here",
    "presence_penalty": "0: log-probabilities are the model's own here",
}
"""What the fields that must hold their neutral value, which is falsy, should be, and why."""


OnlyZero = Annotated[float, Field(json_schema_extra={"minimum": 0, "maximum": 0})]

_ONE: Final[Schema] = {"enum": [1, None]}


class StreamOptions(ForeignRequest, Request):
    """How a stream is sent."""

    include_usage: bool = False
    """One more piece before the end, without choices, says what it all cost."""
    include_obfuscation: Literal[False] = False
    """Pieces are never padded."""


class CompletionRequest(UnsupportedFields, TokenFields, ServingOptions):
    """Prompts to be continued by the most probable completions, or to be scored themselves."""

    noop_values: ClassVar[Neutral] = COMPLETION_DEFAULTS

    priority: Priority = "interactive"
    """``interactive``, ``bulk``, or an integer as vLLM has it: 0 and less, or more."""

    prompt: Prompts
    """One prompt or several: texts or token ids. Ids are taken as they are. One that is empty needs
    the token that ``add_bos`` or ``add_special_tokens`` puts before it."""
    echo: bool = False
    """Begin each choice with its prompt; with ``logprobs`` the prompt's tokens are scored too."""
    prompt_logprobs: PromptLogprobsCount | None = None
    """As vLLM has it: list the log-probability and rank of every prompt token by its id, and so
    many most probable tokens at its place. Goes without ``stream``."""
    max_tokens: Annotated[int, Field(ge=0, le=MAX_NEW_TOKENS)] = DEFAULT_TOKENS
    """Tokens to generate at most, an end token included. 0 goes with ``echo`` or
    ``prompt_logprobs`` only."""
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """List every token's log-probability, and so many most probable tokens at its place."""
    response_format: ResponseFormat | None = None
    """What the text may be, as vLLM has it. JSON needs the server's ``grammar`` extra."""
    n: Annotated[int, Field(ge=1, le=MAX_BEAMS)] = 1
    """Choices for each prompt, best first. More than one are found by beam search."""
    best_of: Annotated[int, Field(ge=1, le=MAX_BEAMS)] | None = None
    """Beams of that search, which ranks by the mean log-probability of a token; at least ``n``, and
    up to 64 where the text must be JSON. Null: ``n``."""
    stop: Stop = Field(default_factory=list)
    """Texts that end a completion, found in what was generated; the text is cut before them."""
    stream: bool = False
    """Answer with server-sent events, and ``data: [DONE]`` at last. Goes without ``best_of``."""
    stream_options: StreamOptions | None = None
    """How the stream is sent."""
    temperature: Annotated[float, Field(ge=0, json_schema_extra={"maximum": 0})] = 0.0
    """Only 0, which is also the default here: nothing is sampled."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The most probable token is in every nucleus, so this changes nothing; with several beams it
    would, and must be 1."""
    seed: Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)] | None = None
    """Taken and without effect: equal requests have equal answers anyway."""
    user: Annotated[str, Field(max_length=MAX_USER_CHARS)] | None = None
    """Taken and without effect."""
    suffix: Annotated[str, Field(json_schema_extra={"maxLength": 0})] | None = None
    """Not served: null or empty."""
    frequency_penalty: OnlyZero = 0.0
    """Not served: 0."""
    presence_penalty: OnlyZero = 0.0
    """Not served: 0."""
    add_special_tokens: bool = False
    """Put before a text what the tokenizer's own rule puts there; a text that begins with it gets
    no second."""
    add_bos: bool | None = None
    """Put the beginning-of-sequence token before every prompt, or none; null leaves it to
    ``add_special_tokens``."""
    parse_special: bool = True
    """Text that spells a control token is that token, as prompts of this API are written. The
    native routes take it for text."""
    ignore_eos: bool = False
    """The model's own end tokens do not end a completion."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        when(
            given("max_tokens", {"const": 0}),
            any_of(given("echo", {"const": True}), given("prompt_logprobs")),
        ),
        when(given("prompt_logprobs"), absent_or(stream=OFF)),
        when(given("max_tokens", {"const": 0}), absent_or(n=_ONE, best_of=_ONE)),
        when(given("stream", {"const": True}), absent_or(n=_ONE, best_of=_ONE)),
        when(given("stream_options"), given("stream", {"const": True})),
        *(
            when(
                given(name, {"exclusiveMinimum": MAX_GRAMMAR_BEAMS, "type": "number"}),
                absent_or(
                    response_format={"anyOf": [UNSET, given("type", {"const": "text"})]},
                ),
            )
            for name in ("n", "best_of")
        ),
        when(
            given("top_p", {"exclusiveMaximum": 1, "type": "number"}),
            absent_or(n=_ONE, best_of=_ONE),
        ),
    )

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"prompt": "The capital of France is", "max_tokens": 8},
        {
            "prompt": [[504, 3575, 282, 4649, 314], [504, 3575]],
            "max_tokens": 1,
            "echo": True,
            "logprobs": 1,
            "temperature": 0,
            "seed": 1234,
        },
    )

    @property
    def prompts(self) -> list[str | list[int]]:
        """All of them, each text or ids."""
        return cast(list[str | list[int]], self.prompt if self.is_batch else [self.prompt])

    @property
    def is_batch(self) -> bool:
        """Whether ``prompt`` is a list of prompts."""
        prompt = self.prompt
        return isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)

    @property
    def beams(self) -> int:
        """Beams that are searched with; one is greedy search."""
        return self.best_of or self.n

    @property
    def constraint(self) -> dict[str, Any] | None:
        """The JSON schema that the text is kept to, if any."""
        return None if self.response_format is None else self.response_format.constraint

    @field_validator(*_NOT_SERVED)
    @classmethod
    def _is_neutral(cls, value: object, info: ValidationInfo) -> object:
        return require_neutral(value, _NOT_SERVED[str(info.field_name)])

    @field_validator("max_tokens")
    @classmethod
    def _asks_for_something(cls, value: int, info: ValidationInfo) -> int:
        asked = info.data.get("echo") or info.data.get("prompt_logprobs") is not None
        if value == 0 and not asked:
            raise PydanticCustomError(
                "nothing_asked", "Input should be at least 1 without echo and prompt_logprobs"
            )
        return value

    @field_validator("n", "best_of")
    @classmethod
    def _has_choices(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value > 1 and info.data.get("max_tokens") == 0:
            raise PydanticCustomError("no_choices", "Input should be 1 where max_tokens is 0")
        written = info.data.get("response_format")
        json = written is not None and written.constraint is not None
        if json and value is not None and value > MAX_GRAMMAR_BEAMS:
            raise PydanticCustomError(
                "above_grammar_beams",
                "Input should be at most {limit} where the text must be JSON",
                {"limit": MAX_GRAMMAR_BEAMS},
            )
        return value

    @field_validator("best_of")
    @classmethod
    def _is_enough(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < info.data.get("n", 1):
            raise PydanticCustomError("below_n", "Input should be at least n")
        return value

    @field_validator("stream")
    @classmethod
    def _is_greedy(cls, value: bool, info: ValidationInfo) -> bool:
        if value and _beams(info) > 1:
            raise PydanticCustomError("greedy_only", "Input goes without n and best_of above 1")
        return value

    @field_validator("stream")
    @classmethod
    def _is_without_a_listed_prompt(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("prompt_logprobs") is not None:
            raise PydanticCustomError("no_pieces", "Input goes without prompt_logprobs")
        return value

    @field_validator("stream_options")
    @classmethod
    def _belongs_to_a_stream(
        cls, value: StreamOptions | None, info: ValidationInfo
    ) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise PydanticCustomError("no_stream", "Input goes with stream only")
        return value

    @field_validator("top_p")
    @classmethod
    def _changes_nothing(cls, value: float, info: ValidationInfo) -> float:
        if value < 1 and _beams(info) > 1:
            raise PydanticCustomError("no_nucleus", "Input should be 1 with several beams")
        return value


def _beams(info: ValidationInfo) -> int:
    return int(info.data.get("best_of") or info.data.get("n") or 1)
