"""POST /v1/completions/render and /v1/chat/completions/render as vLLM's routers read them."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, RootModel

from app.compat.openai.request import StreamOptions
from app.schemas.response import ResponseModel


class SamplingParams(ResponseModel):
    """How a prompt would be continued."""

    n: int
    temperature: float = 0.0
    """Nothing is sampled."""
    top_p: float = 1.0
    max_tokens: int
    stop: list[str]
    ignore_eos: bool
    logprobs: int | None
    """Most probable tokens that would be listed at each place; null for no list."""
    prompt_logprobs: int | None
    """The same of the prompt's own tokens."""
    seed: int | None
    logit_bias: dict[int, int] | None
    """By token id: -100 for one that may not come, 100 for all that may; null for none."""
    allowed_token_ids: list[int] | None
    skip_special_tokens: bool
    structured_outputs: dict[str, Any] | None
    """The JSON schema that the text is kept to, as ``json``; null for none."""


_EXAMPLE: dict[str, Any] = {
    "request_id": "cmpl-3f6d2b8c1a9e4d57b0c2f4a68e1d7b93",
    "token_ids": [504, 3575, 282, 4649, 314],
    "token_offsets": None,
    "features": None,
    "sampling_params": {
        "n": 1,
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 16,
        "stop": [],
        "ignore_eos": False,
        "logprobs": None,
        "prompt_logprobs": None,
        "seed": None,
        "logit_bias": None,
        "allowed_token_ids": None,
        "skip_special_tokens": True,
        "structured_outputs": None,
    },
    "model": "smollm2-135m-instruct",
    "stream": False,
    "stream_options": None,
    "cache_salt": None,
    "priority": 0,
    "kv_transfer_params": None,
}


class RenderedPrompt(ResponseModel):
    """A prompt as the model reads it. Nothing was computed."""

    request_id: str
    """A new name for it."""
    token_ids: list[int]
    """What the model is fed."""
    token_offsets: None = None
    features: None = None
    """Of images; there are none."""
    sampling_params: SamplingParams
    model: str
    stream: bool
    stream_options: StreamOptions | None
    cache_salt: str | None
    """Null without one."""
    priority: int
    """0 for ``interactive``, 1 for ``bulk``."""
    kv_transfer_params: None = None

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})


class RenderedPrompts(RootModel[list[RenderedPrompt]]):
    """One for each prompt, in order."""
