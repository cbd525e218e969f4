"""POST /tokenize, POST /detokenize and GET /tokenizer_info as vLLM's clients speak them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.compat.foreign_fields import TOKENIZER_DEFAULTS, Neutral, UnsupportedFields
from app.compat.openai.ending import ChatEnding
from app.schemas.bounds import MAX_MODEL_NAME_CHARS
from app.schemas.conditions import UNSET, Schema, absent_or, any_of, given, when
from app.schemas.request import Messages, Request, Text, TokenIds
from app.schemas.response import ResponseModel

ModelName = Annotated[str, Field(max_length=MAX_MODEL_NAME_CHARS)]


class TokenizeRequest(UnsupportedFields, ChatEnding):
    """A text, or messages in the model's chat template, to be cut into tokens."""

    noop_values: ClassVar[Neutral] = TOKENIZER_DEFAULTS

    model: ModelName | None = None
    """The served model's name, as a check."""
    messages: Messages | None = None
    """What the chat template turns into tokens, ready for the assistant's turn, or left open where
    they end with the assistant's words. A control token that a message spells stays text."""
    prompt: Text | None = Field(default=None, validate_default=True)
    """A text; one that spells a control token is that token. Goes without ``messages``."""
    add_special_tokens: bool | None = None
    """Put before it what the tokenizer's own rule puts there, unless it begins with that. Null:
    true for a ``prompt``, false for messages, whose template writes what the model expects."""
    return_token_strs: bool = False
    """List the tokens' texts as well."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        *ChatEnding.conditions,
        any_of(given("prompt"), given("messages")),
        when(given("messages"), absent_or(prompt=UNSET)),
    )

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"prompt": "The capital of France is", "add_special_tokens": False},
        {"messages": [{"role": "user", "content": "Is the sky blue?"}]},
    )

    @property
    def adds_special_tokens(self) -> bool:
        """Whether the tokenizer's own rule applies."""
        return (
            self.prompt is not None if self.add_special_tokens is None else self.add_special_tokens
        )

    @field_validator("prompt")
    @classmethod
    def _is_one_of_two(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "messages" not in info.data:
            return value
        if value is None and info.data["messages"] is None:
            raise PydanticCustomError("missing", "Field required")
        if value is not None and info.data["messages"] is not None:
            raise PydanticCustomError("one_of_two", "Input goes without messages")
        return value


class Tokenized(ResponseModel):
    """The tokens of a text."""

    count: int
    max_model_len: int
    """The longest token path that the model takes."""
    tokens: list[int]
    token_strs: list[str] | None
    """Null unless asked for; bytes that are no text show as U+FFFD."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "count": 5,
                    "max_model_len": 8192,
                    "tokens": [504, 3575, 282, 4649, 314],
                    "token_strs": None,
                }
            ]
        }
    )


class DetokenizeRequest(UnsupportedFields, Request):
    """Tokens to be put back together."""

    model: ModelName | None = None
    """The served model's name, as a check."""
    tokens: TokenIds
    """Ids of the served model."""
    skip_special_tokens: bool = False
    """Leave control tokens out of the text."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"tokens": [504, 3575, 282, 4649, 314]},)


class Detokenized(ResponseModel):
    """The text that tokens stand for."""

    prompt: str
    """What the tokenizer's own decoder makes of the tokens: a blank that the tokenizer puts before
    every text is left out. Control tokens show as their texts, bytes that are no UTF-8 as U+FFFD.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "The capital of France is"}]}
    )


class TokenizerInfo(ResponseModel):
    """What a client needs to know to write prompts of its own; null is what there is not."""

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    add_bos_token: bool
    """The tokenizer's own rule puts BOS before a text, alone or among other tokens."""
    chat_template: str | None
    """In Jinja."""
    model_max_length: int
    """The longest token path that the model takes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "bos_token": "<|im_start|>",
                    "eos_token": "<|im_end|>",
                    "pad_token": "<|im_end|>",
                    "bos_token_id": 1,
                    "eos_token_id": 2,
                    "pad_token_id": 2,
                    "add_bos_token": False,
                    "chat_template": "{% for message in messages %}...{% endfor %}",
                    "model_max_length": 8192,
                }
            ]
        }
    )
