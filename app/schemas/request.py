"""What every request shares: strictness, the context, and how it wants to be treated.

Bodies are read strictly: unknown keys, ``true`` or ``"1"`` for an integer, NaN and infinity are
refused. An explicit null for an optional field means its default.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.schemas.bounds import (
    MAX_CACHE_SALT_CHARS,
    MAX_CANDIDATE_ID,
    MAX_MESSAGES,
    MAX_MODEL_NAME_CHARS,
    MAX_TEMPERATURE,
    MAX_TEXT_CHARS,
    MAX_TIMEOUT_MS,
    MAX_TOKEN_ID,
    MAX_TOKEN_IDS,
    MAX_TOP_LOGPROBS,
)
from app.schemas.conditions import Schema

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


_NOT_SERVED = "Not served: null, or what asks for nothing."


def _say_what_is_done(schema: dict[str, Any], model: type[Request]) -> None:
    """Say in the JSON schema what ``Request`` does: null stands for the default, ``conditions``
    hold, and what a ``ForeignRequest`` takes beside its fields."""
    for name, field in schema["properties"].items():
        kinds = [kind.get("type") for kind in field.get("anyOf", ())]
        if name in schema.get("required", ()) or "null" in kinds:
            continue
        about = {key: field.pop(key) for key in ("title", "description", "default") if key in field}
        schema["properties"][name] = {"anyOf": [dict(field), {"type": "null"}], **about}
    for name, neutral in getattr(model, "noop_values", {}).items():
        schema["properties"][name] = {"enum": [None, *neutral], "description": _NOT_SERVED}
    if getattr(model, "takes_unknown_nulls", False):
        schema["additionalProperties"] = {"type": "null"}
    if model.conditions:
        schema["allOf"] = list(model.conditions)
    if model.examples:
        schema["examples"] = list(model.examples)


class Request(BaseModel):
    """Base of every body: strict, closed, immutable."""

    model_config = ConfigDict(
        **_STRICT,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        json_schema_extra=_say_what_is_done,
    )
    conditions: ClassVar[tuple[Schema, ...]] = ()
    """What fields ask of others, for the document; the validators see to it."""
    examples: ClassVar[tuple[dict[str, Any], ...]] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _null_means_the_default(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if value is None and not field.is_required():
            return field.get_default(call_default_factory=True, validated_data=info.data)
        return value


class Message(Request):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """Who speaks."""
    content: Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
    """What is said. Text that spells a control token stays text."""


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
# One complaint is all that is reported; a million others would take seconds to collect.
TokenIds = Annotated[list[TokenId], Field(max_length=MAX_TOKEN_IDS, fail_fast=True)]
Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
# An id out of range fails its candidate, not the request, so it must get past the schema.
CandidateIds = Annotated[
    list[Annotated[int, Field(ge=-MAX_CANDIDATE_ID, le=MAX_CANDIDATE_ID)]],
    Field(max_length=MAX_TOKEN_IDS, fail_fast=True),
]

_TEXT: TypeAdapter[str] = TypeAdapter(Text, config=_STRICT)
_TOKEN_IDS: TypeAdapter[list[int]] = TypeAdapter(TokenIds, config=_STRICT)
_MESSAGES: TypeAdapter[list[Message]] = TypeAdapter(Messages)
_CANDIDATE_IDS: TypeAdapter[list[int]] = TypeAdapter(CandidateIds, config=_STRICT)


# A plain union would report every branch that did not match; the caller meant only one of them.
def _read_context(value: object) -> object:
    if isinstance(value, str):
        return _TEXT.validate_python(value)
    if isinstance(value, list):
        is_chat = bool(value) and isinstance(value[0], dict)
        return (_MESSAGES if is_chat else _TOKEN_IDS).validate_python(value)
    raise PydanticCustomError(
        "context_type", "Input should be text, a list of token ids or a list of messages"
    )


def _read_candidate(value: object) -> object:
    if isinstance(value, str):
        # There may be a hundred thousand of them.
        return value if len(value) <= MAX_TEXT_CHARS else _TEXT.validate_python(value)
    if isinstance(value, list):
        return _CANDIDATE_IDS.validate_python(value)
    raise PydanticCustomError("candidate_type", "Input should be text or a list of token ids")


Context = Annotated[
    str | list[int] | list[Message],
    PlainValidator(_read_context, json_schema_input_type=Text | TokenIds | Messages),
]
Candidate = Annotated[
    str | list[int],
    PlainValidator(_read_candidate, json_schema_input_type=Text | CandidateIds),
]
Temperature = Annotated[float, Field(gt=0, le=MAX_TEMPERATURE)]
TopCount = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)]


class ServingOptions(Request):
    """Which model a request wants, and how it wants to be treated."""

    model: Annotated[str, Field(max_length=MAX_MODEL_NAME_CHARS)] | None = None
    """The served model's name, as a check; null takes what is served."""
    priority: Literal["interactive", "bulk"] = "interactive"
    """Class of service. Each class keeps a reserved share of every batch."""
    timeout_ms: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)] | None = None
    """Milliseconds from the request's arrival after which it ends with 504; null: the server's own
    default. An exact search ends with what it has found by then."""
    cache_salt: Annotated[str, Field(max_length=MAX_CACHE_SALT_CHARS)] = ""
    """Computed tokens are shared only among requests of the same salt (and, where the server has
    several API keys, of the same key), so that timing tells nobody else what was sent. Changes no
    score."""


class ContextRequest(ServingOptions):
    """A request that asks something about what follows a context."""

    context: Context
    """What everything is conditional on: text, token ids, or messages, which the model's own chat
    template turns into token ids, ready for the assistant's turn. Messages that end with the
    assistant's words are left open, so that what follows goes on from there. Text that spells a
    control token stays text."""
    add_bos: bool | None = None
    """Put the beginning-of-sequence token first. Null: what the tokenizer's own rule puts before a
    text, several tokens for some models, and nothing before token ids and messages, which hold it
    already where it belongs."""
    prefix_token_id: TokenId | None = None
    """The first token of an empty context, where ``add_bos`` is not true."""


class LogprobsRequest(ContextRequest):
    """A request whose answer can list every token."""

    token_logprobs: bool = False
    """List every token, with its log-probability, rank and place."""
    top_logprobs: TopCount = 0
    """So many most probable tokens at each position; implies ``token_logprobs``."""

    @property
    def lists_tokens(self) -> bool:
        """Whether the answer lists every token."""
        return self.token_logprobs or self.top_logprobs > 0
