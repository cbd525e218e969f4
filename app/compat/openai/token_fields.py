"""What requests of OpenAI's kind ask of single tokens: which may come, and which are text."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, PlainValidator, TypeAdapter
from pydantic_core import PydanticCustomError

from app.compat.openai.response_format import ResponseFormat
from app.decoding.token_rules import TokenRules
from app.requests.limits import check_ids
from app.schemas.bounds import MAX_BIASES
from app.schemas.request import Request, TokenIds
from model_runtime import InvalidQuery, ModelInfo, NothingFollows, TokenIdOutOfRange

FORBIDDEN: Final = -100
REQUIRED: Final = 100
_BIASES: Final = (FORBIDDEN, 0, REQUIRED)

_ID: Final = re.compile("(0|[1-9][0-9]{0,8})")
MAX_ID_DIGITS: Final = 9


def _check_bias(bias: object) -> object:
    if isinstance(bias, bool) or bias not in _BIASES:
        raise PydanticCustomError(
            "bias_value",
            "Input should be -100 for a token that may not be generated, or 100 for all that may; "
            "no other bias than 0 is served: log-probabilities are the model's own",
        )
    return bias


_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_BIAS: TypeAdapter[dict[str, Any]] = TypeAdapter(
    dict[str, Annotated[Any, AfterValidator(_check_bias)]]
)


def _read_bias(value: object) -> dict[int, int]:
    """By token id. The first complaint is all that is reported: there may be many."""
    given = _OBJECT.validate_python(value)
    if len(given) > MAX_BIASES:
        raise PydanticCustomError(
            "too_many_biases", "Input should have at most {limit} tokens", {"limit": MAX_BIASES}
        )
    biases: dict[int, int] = {}
    for key, bias in given.items():
        if _ID.fullmatch(key) is None:
            raise PydanticCustomError("bias_token", "Input should have token ids for keys")
        if isinstance(bias, bool) or bias not in _BIASES:
            _BIAS.validate_python({key: bias})
        biases[int(key)] = int(bias)
    return biases


_BIAS_SCHEMA: Final = {
    "maxProperties": MAX_BIASES,
    "propertyNames": {"pattern": f"^{_ID.pattern}$", "maxLength": MAX_ID_DIGITS},
    "additionalProperties": {"enum": list(_BIASES)},
}
LogitBias = Annotated[
    dict[int, int],
    PlainValidator(
        _read_bias,
        json_schema_input_type=Annotated[
            dict[str, float], Field(json_schema_extra=dict(_BIAS_SCHEMA))
        ],
    ),
]


class TokenFields(Request):
    """Which tokens may be generated, and which of those that are generated the text shows."""

    allowed_token_ids: Annotated[TokenIds, Field(min_length=1)] | None = None
    """The only tokens that may be generated. An end token is one like any other: where none is
    among them, a completion goes on up to ``max_tokens``. Their log-probabilities stay the model's
    own; nothing is renormalised."""
    logit_bias: LogitBias = Field(default_factory=dict)
    """By token id, as a mask: -100 for a token that may not be generated; 100 for all that may,
    which together with ``allowed_token_ids`` are those that both name. No other bias than 0 is
    served, since log-probabilities stay the model's own."""
    skip_special_tokens: bool = True
    """Control tokens that are generated are no part of the text, as in vLLM and transformers; they
    are listed with ``logprobs`` all the same, and an echo shows the prompt as it is. Stops are
    looked for in that text, and one that spells a control token ends a completion with it."""

    @cached_property
    def token_rules(self) -> TokenRules:
        """What they come to; ids are checked by ``check_tokens``."""
        required = frozenset(i for i, bias in self.logit_bias.items() if bias == REQUIRED)
        allowed = None if self.allowed_token_ids is None else frozenset(self.allowed_token_ids)
        if required:
            allowed = required if allowed is None else allowed & required
        return TokenRules(
            allowed_ids=allowed,
            forbidden_ids=frozenset(i for i, bias in self.logit_bias.items() if bias == FORBIDDEN),
            hides_control=self.skip_special_tokens,
        )

    @property
    def mask_param(self) -> str:
        """The field that forbids tokens, if any does."""
        return "allowed_token_ids" if self.allowed_token_ids is not None else "logit_bias"


def no_token_left(
    error: NothingFollows, request: TokenFields, written: ResponseFormat | None
) -> NothingFollows:
    """The error, naming the mask at fault, and the format that it does not go with, if any."""
    if written is None or written.constraint is None:
        return error.at(request.mask_param)
    return NothingFollows(f"{error.reason}; {written.param} narrows it too", request.mask_param)


def check_tokens(request: TokenFields, info: ModelInfo) -> None:
    """Refuse ids that the model does not have, and masks that leave no token.

    Raises:
        InvalidQuery: naming the field.
    """
    check_ids("allowed_token_ids", request.allowed_token_ids or (), info)
    for token_id in request.logit_bias:
        if token_id >= info.vocab_size:
            raise TokenIdOutOfRange(
                f"{token_id} is no token id; ids run from 0 to {info.vocab_size - 1}",
                "logit_bias",
            )
    mask = request.token_rules.mask(info.vocab_size)
    if mask is not None and not mask:
        raise InvalidQuery("no token is left that may be generated", request.mask_param)
