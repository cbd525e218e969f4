"""POST /v1/decode: the most probable continuations that a search finds."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import (
    MAX_BEAMS,
    MAX_LENGTH_PENALTY,
    MAX_NEW_TOKENS,
    MAX_STOP_CHARS,
    MAX_STOP_IDS,
    MAX_STOPS,
)
from app.schemas.request import ListingRequest, TokenId
from app.schemas.response import Part, Reply, TokenDetail, example

T = TypeVar("T")

StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
StopTexts = Annotated[list[StopText], Field(max_length=MAX_STOPS)]
_STOP_TEXTS: TypeAdapter[list[str]] = TypeAdapter(StopTexts, config=ConfigDict(strict=True))
_STOP_TEXT: TypeAdapter[str] = TypeAdapter(StopText, config=ConfigDict(strict=True))


DEFAULT_BEAMS = 4
_GREEDY_MEANS: dict[str, object] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
}


def _read_stop(value: object) -> list[str]:
    if isinstance(value, str):
        return [_STOP_TEXT.validate_python(value)]
    if isinstance(value, list):
        return _STOP_TEXTS.validate_python(value)
    raise PydanticCustomError("stop_type", "Input should be text or a list of texts")


def _read_early_stopping(value: object) -> object:
    if isinstance(value, bool) or value == "never":
        return value
    raise PydanticCustomError("early_stopping_type", 'Input should be true, false or "never"')


Stop = Annotated[list[str], PlainValidator(_read_stop, json_schema_input_type=StopText | StopTexts)]
EarlyStopping = Annotated[
    Literal[True, False, "never"],
    PlainValidator(_read_early_stopping, json_schema_input_type=Literal[True, False, "never"]),
]


class DecodeRequest(ListingRequest):
    """What to generate, and how to search for it."""

    strategy: Literal["greedy", "beam"] = "greedy"
    """``greedy``: the most probable token at each step. ``beam``: beam search with the semantics of
    Hugging Face's ``generate``."""
    num_beams: Annotated[int, Field(ge=1, le=MAX_BEAMS)] | None = None
    """Beams kept at each step. Null: 4 for ``beam``."""
    num_return_sequences: Annotated[int, Field(ge=1, le=MAX_BEAMS)] = 1
    """How many of the beams to return; at most ``num_beams``."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] = 32
    """Tokens to generate at most, an end token included."""
    min_tokens: Annotated[int, Field(ge=0, le=MAX_NEW_TOKENS)] = 0
    """No end token before so many tokens have been generated."""
    length_penalty: Annotated[float, Field(ge=-MAX_LENGTH_PENALTY, le=MAX_LENGTH_PENALTY)] = 1.0
    """A beam's score is ``logprob / generated_length ** length_penalty``, its end token counted."""
    early_stopping: EarlyStopping = False
    """When a beam search ends. true: as soon as ``num_beams`` have finished. false: when no live
    beam looks able to beat them at its present length. "never": when none can at any length."""
    stop: Stop = Field(default_factory=list)
    """Texts that end a sequence, found in what was generated, never in the context. The returned
    text is cut before them."""
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)] = Field(
        default_factory=list
    )
    """Tokens that end a sequence, besides the model's own end tokens."""
    ignore_eos: bool = False
    """The model's own end tokens do not end a sequence."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"context": "The capital of France is", "max_tokens": 8},
        {
            "context": "The capital of France is",
            "strategy": "beam",
            "num_beams": 4,
            "num_return_sequences": 2,
            "max_tokens": 16,
            "stop": ["\n"],
            "token_logprobs": True,
        },
    )

    @property
    def beams(self) -> int:
        """Beams kept at each step."""
        return self.num_beams or (DEFAULT_BEAMS if self.strategy == "beam" else 1)

    @field_validator(*_GREEDY_MEANS)
    @classmethod
    def _is_for_beams(cls, value: T, info: ValidationInfo) -> T:
        if info.data.get("strategy") == "greedy" and value not in (
            None,
            _GREEDY_MEANS[str(info.field_name)],
        ):
            raise PydanticCustomError("beam_only", "Only the beam strategy has this setting")
        return value

    @field_validator("num_return_sequences")
    @classmethod
    def _is_within_beams(cls, value: int, info: ValidationInfo) -> int:
        if "num_beams" in info.data and value > (info.data["num_beams"] or DEFAULT_BEAMS):
            raise PydanticCustomError("above_num_beams", "Input should be at most num_beams")
        return value

    @field_validator("min_tokens")
    @classmethod
    def _is_within_max_tokens(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("max_tokens", value):
            raise PydanticCustomError("above_max_tokens", "Input should be at most max_tokens")
        return value


class DecodedSequence(Part):
    """One continuation."""

    index: int
    """Place in the order of ``score``, best first."""
    text: str
    """What was generated, without its end token, cut before a stop text."""
    token_ids: list[int]
    """Everything that was generated, the end token and a stop text's tokens included."""
    logprob: float
    """Sum over ``token_ids``: what /v1/score says of these ids under ``separate``."""
    score: float
    """What the search ranks by: ``logprob / len(token_ids) ** length_penalty`` for ``beam``, the
    ``logprob`` for ``greedy``."""
    finish_reason: Literal["stop", "length"]
    """``stop``: an end token, a stop token or a stop text. ``length``: ``max_tokens``."""
    tokens: list[TokenDetail] | None
    """One entry for each of ``token_ids``; null unless asked for."""


class DecodeResponse(Reply):
    """Continuations, best first."""

    object: Literal["decode"] = "decode"
    sequences: list[DecodedSequence]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                example(
                    id="decode-9b7a5c3e1f0d4826b4a2c6e8f0d1b3a5",
                    object="decode",
                    sequences=[
                        {
                            "index": 0,
                            "text": " Paris.",
                            "token_ids": [7042, 30, 2],
                            "logprob": -1.75,
                            "score": -1.75,
                            "finish_reason": "stop",
                            "tokens": None,
                        }
                    ],
                    usage={
                        "prompt_tokens": 5,
                        "scored_tokens": 3,
                        "cached_tokens": 0,
                        "computed_tokens": 7,
                    },
                )
            ]
        }
    )
