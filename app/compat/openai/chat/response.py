"""POST /v1/chat/completions as OpenAI's clients read it: the answer, and the pieces of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from app.compat.openai.prompt_logprobs import PromptLogprobs
from app.compat.openai.response import CompletionUsage
from app.schemas.response import PART_CONFIG, ResponseModel

FinishReason = Literal["stop", "length"]


# There may be tens of thousands of these; a dataclass is made ten times as fast as a model.
@dataclass(slots=True, kw_only=True)
class ChatTopLogprob:
    """One of the most probable tokens at a place."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    token: str
    """A text that stands for this token only, as in /v1/completions."""
    logprob: float
    bytes: list[int]
    """The exact bytes the token stands for."""


@dataclass(slots=True, kw_only=True)
class ChatTokenLogprob:
    """One token of an answer."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    token: str
    """A text that stands for this token only, as in /v1/completions."""
    logprob: float
    """Its natural logarithm, the model's own."""
    bytes: list[int]
    """The exact bytes the token stands for; a part of a character, perhaps."""
    top_logprobs: list[ChatTopLogprob]
    """The most probable tokens at its place, best first."""


class ChatLogprobs(ResponseModel):
    """The listed tokens of one choice."""

    content: list[ChatTokenLogprob]
    """With ``echo`` those of the last message first. The end token is listed, too."""
    refusal: None = None


class AssistantMessage(ResponseModel):
    """What the assistant says."""

    role: Literal["assistant"] = "assistant"
    content: str
    """With ``echo`` the last message first. Without an end token."""
    refusal: None = None


class ChatChoice(ResponseModel):
    """One answer to the messages."""

    index: int
    """Its place among the choices, best first."""
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    """Null unless asked for."""
    finish_reason: FinishReason
    """``stop``: an end token, a stop text, or all of what the format allows. ``length``:
    ``max_tokens``."""


class ChatCompletion(ResponseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Unix seconds."""
    model: str
    system_fingerprint: str
    """Digest of weights, tokenizer, dtype, code and torch version: the same one, the same bits."""
    choices: list[ChatChoice]
    usage: CompletionUsage
    prompt_logprobs: PromptLogprobs | None
    """For each token of the messages the token itself and the most probable ones at its place, by
    token id; null for the first. Null unless asked for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "chatcmpl-3f6d2b8c1a9e4d57b0c2f4a68e1d7b93",
                    "object": "chat.completion",
                    "created": 1764000000,
                    "model": "smollm2-135m-instruct",
                    "system_fingerprint": "5b1f0c7a9d3e4f62",
                    "choices": [
                        {
                            "index": 0,
                            "message": {
                                "role": "assistant",
                                "content": "Apple",
                                "refusal": None,
                            },
                            "logprobs": None,
                            "finish_reason": "stop",
                        }
                    ],
                    "usage": {
                        "prompt_tokens": 34,
                        "completion_tokens": 2,
                        "total_tokens": 36,
                        "prompt_tokens_details": {"cached_tokens": 0},
                    },
                    "prompt_logprobs": None,
                }
            ]
        }
    )


class FirstDelta(ResponseModel):
    """The beginning of an answer: who speaks, and the last message where it is echoed."""

    role: Literal["assistant"] = "assistant"
    content: str = ""


class TextDelta(ResponseModel):
    """What the text grows by."""

    content: str


class NoDelta(ResponseModel):
    """Nothing more."""


class ChunkChoice(ResponseModel):
    """A piece of an answer."""

    index: int
    delta: FirstDelta | TextDelta | NoDelta
    logprobs: ChatLogprobs | None = None
    """Of the tokens that this piece is about; null unless asked for."""
    finish_reason: FinishReason | None = None
    """Null until the answer has ended."""


class ChatCompletionChunk(ResponseModel):
    """A piece of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    """One, or none in the piece that says what it all cost."""
    usage: CompletionUsage | None
    """Null in all pieces but the last, which is sent where ``include_usage`` is set."""
