"""POST /v1/chat/completions as OpenAI's clients and vLLM's speak it: the request.

What is asked for and not served is refused by name; it is never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.compat.foreign_fields import (
    CHAT_DEFAULTS,
    Neutral,
    Priority,
    UnsupportedFields,
    require_neutral,
)
from app.compat.openai.chat.messages import ChatMessages
from app.compat.openai.ending import ChatEnding
from app.compat.openai.prompt_logprobs import PromptLogprobsCount
from app.compat.openai.request import OnlyZero, StreamOptions
from app.compat.openai.response_format import ResponseFormat
from app.compat.openai.token_fields import TokenFields
from app.schemas.bounds import (
    MAX_BEAMS,
    MAX_GRAMMAR_BEAMS,
    MAX_NEW_TOKENS,
    MAX_SEED,
    MAX_TOP_LOGPROBS,
    MAX_USER_CHARS,
)
from app.schemas.conditions import Schema, absent_or, any_of, given, when
from app.schemas.decode import Stop
from app.schemas.request import ServingOptions

DEFAULT_CHOICE_TOKENS: Final = 256
"""The most tokens of each of several choices where nothing is said of their number."""

_NOT_SERVED: Final = {
    "temperature": "0: nothing is sampled here, the most probable answer is searched",
    "frequency_penalty": "0: log-probabilities are the model's own here",
    "presence_penalty": "0: log-probabilities are the model's own here",
}
"""What the fields that must hold their neutral value, which is falsy, should be, and why."""

_ONE: Final[Schema] = {"enum": [1, None]}
_ZERO: Final[Schema] = {"const": 0}


class ChatRequest(UnsupportedFields, TokenFields, ServingOptions, ChatEnding):
    """Messages to be answered by the most probable reply, or whose last one is to be scored."""

    noop_values: ClassVar[Neutral] = {
        **CHAT_DEFAULTS,
        "add_special_tokens": (False,),
        "prompt_cache_options": ({},),
        "prompt_cache_retention": ("in_memory",),
    }

    priority: Priority = "interactive"
    """``interactive``, ``bulk``, or an integer as vLLM has it: 0 and less, or more."""

    messages: ChatMessages
    """The conversation, in the model's own chat template. The answer is the assistant's turn behind
    it, or goes on from the last message where the assistant wrote it."""
    echo: bool | None = None
    """Begin the answer with the last message, which is gone on from; with ``logprobs`` its tokens
    are scored too. Null: where ``max_tokens`` is 0 and a message is gone on from."""
    prompt_logprobs: PromptLogprobsCount | None = None
    """As vLLM has it: list the log-probability and rank of every token of the messages by its id,
    and so many most probable tokens at its place. Goes without ``stream``."""
    max_tokens: Annotated[int, Field(ge=0, le=MAX_NEW_TOKENS)] | None = None
    """Tokens to generate at most, an end token included. 0 scores the last message, or goes with
    ``prompt_logprobs``. Null: as many as the model has room for and a response may list, and at
    most 256 of each choice where ``n`` is above 1."""
    max_completion_tokens: Annotated[int, Field(ge=0, le=MAX_NEW_TOKENS)] | None = None
    """The same by its newer name; where both are given they must be equal."""
    logprobs: bool = False
    """List every token with its log-probability."""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    """So many most probable tokens at each place; goes with ``logprobs``."""
    response_format: ResponseFormat | None = None
    """What the text may be. JSON needs the server's ``grammar`` extra."""
    n: Annotated[int, Field(ge=1, le=MAX_BEAMS)] = 1
    """Choices, best first. More than one are found by beam search with as many beams, which ranks
    by the mean log-probability of a token; up to 64 where the text must be JSON."""
    stop: Stop = Field(default_factory=list)
    """Texts that end an answer, found in what was generated; the text is cut before them."""
    stream: bool = False
    """Answer with server-sent events, and ``data: [DONE]`` at last. One choice only."""
    stream_options: StreamOptions | None = None
    """How the stream is sent; goes with ``stream``."""
    temperature: Annotated[float, Field(ge=0, json_schema_extra={"maximum": 0})] = 0.0
    """Only 0, which is also the default here: nothing is sampled."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The most probable token is in every nucleus, so this changes nothing; with several choices it
    would, and must be 1."""
    seed: Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)] | None = None
    """Taken and without effect: equal requests have equal answers anyway."""
    safety_identifier: Annotated[str, Field(max_length=MAX_USER_CHARS)] | None = None
    """Taken and without effect."""
    prompt_cache_key: Annotated[str, Field(max_length=MAX_USER_CHARS)] | None = None
    """Taken and without effect: every beginning that was computed is shared, by ``cache_salt``."""
    frequency_penalty: OnlyZero = 0.0
    """Not served: 0."""
    presence_penalty: OnlyZero = 0.0
    """Not served: 0."""
    ignore_eos: bool = False
    """The model's own end tokens do not end an answer."""

    # More than these, and generators of requests find none that keeps them all: the others are in
    # the fields' descriptions alone.
    conditions: ClassVar[tuple[Schema, ...]] = (
        *ChatEnding.conditions,
        *(
            when(given(name, _ZERO), consequence)
            for name in ("max_tokens", "max_completion_tokens")
            for consequence in (
                absent_or(n=_ONE),
                any_of(absent_or(echo={"enum": [True, None]}), given("prompt_logprobs")),
            )
        ),
        when(given("top_p", {"exclusiveMaximum": 1, "type": "number"}), absent_or(n=_ONE)),
    )

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"messages": [{"role": "user", "content": "Name a fruit."}], "max_tokens": 8},
        {
            "messages": [
                {"role": "user", "content": "Name a fruit."},
                {"role": "assistant", "content": "Apple"},
            ],
            "max_tokens": 0,
            "continue_final_message": True,
            "add_generation_prompt": False,
            "echo": True,
            "logprobs": True,
            "top_logprobs": 2,
        },
    )

    @property
    def wanted_tokens(self) -> int | None:
        """Tokens to generate at most, by either name; None where nothing is said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def max_tokens_param(self) -> str:
        """The name under which they were given."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    @property
    def constraint(self) -> dict[str, Any] | None:
        """The JSON schema that the text is kept to, if any."""
        return None if self.response_format is None else self.response_format.constraint

    @field_validator(*_NOT_SERVED)
    @classmethod
    def _is_neutral(cls, value: object, info: ValidationInfo) -> object:
        return require_neutral(value, _NOT_SERVED[str(info.field_name)])

    @field_validator("max_completion_tokens")
    @classmethod
    def _is_said_once(cls, value: int | None, info: ValidationInfo) -> int | None:
        older = info.data.get("max_tokens")
        if value is not None and older is not None and value != older:
            raise PydanticCustomError("two_lengths", "Input should equal max_tokens")
        return value

    @field_validator("max_tokens", "max_completion_tokens")
    @classmethod
    def _asks_for_something(cls, value: int | None, info: ValidationInfo) -> int | None:
        asked = info.data.get("prompt_logprobs") is not None
        if value == 0 and info.data.get("echo") is False and not asked:
            raise PydanticCustomError(
                "nothing_asked", "Input should be at least 1 without echo and prompt_logprobs"
            )
        return value

    @field_validator("top_logprobs")
    @classmethod
    def _is_listed(cls, value: int, info: ValidationInfo) -> int:
        if value and not info.data.get("logprobs"):
            raise PydanticCustomError("no_logprobs", "Input goes with logprobs only")
        return value

    @field_validator("n")
    @classmethod
    def _has_choices(cls, value: int, info: ValidationInfo) -> int:
        data = info.data
        if value > 1 and 0 in (data.get("max_tokens"), data.get("max_completion_tokens")):
            raise PydanticCustomError("no_choices", "Input should be 1 where max_tokens is 0")
        json = data.get("response_format")
        if value > MAX_GRAMMAR_BEAMS and json is not None and json.constraint is not None:
            raise PydanticCustomError(
                "above_grammar_beams",
                "Input should be at most {limit} where the text must be JSON",
                {"limit": MAX_GRAMMAR_BEAMS},
            )
        return value

    @field_validator("stream")
    @classmethod
    def _is_greedy(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("n", 1) > 1:
            raise PydanticCustomError("greedy_only", "Input goes without n above 1")
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
        if value < 1 and info.data.get("n", 1) > 1:
            raise PydanticCustomError("no_nucleus", "Input should be 1 with several choices")
        return value
