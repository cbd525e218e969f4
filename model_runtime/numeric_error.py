"""How far this model's log-probabilities are from float64, on a fixed sample of tokens.

The same sample is the last check of an architecture: a model that would be computed wrongly, or
whose paths would see their neighbours, by something that its config does not tell, is refused
before it is served.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from model_runtime.errors import UnsupportedModel
from model_runtime.reference import reference_logprobs
from model_runtime.types import ModelInfo

SAMPLE_TOKENS = 160
"""Long enough to cross a key block."""

LARGEST_MODEL_BYTES = 4 << 30
"""Of float64 weights. A larger model would double the memory that a start needs."""

LARGEST_ERROR = {"float32": 0.01, "bfloat16": 1.0}
"""In nats a token. Beyond it the forward is wrong, not rounded."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A token path, and what float64 says of it.

    Attributes:
        tokens: [n] the path.
        logprobs: [n - 1] log P(token | all before it) in float64, from the second token on;
            None where the model is too large for that.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None

    def paths(self, longest: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The path, and a shorter one that leaves it at a third; at most ``longest`` tokens."""
        path = self.tokens[:longest]
        third = max(1, len(path) // 3)
        return path, path[:third] + path[third : 2 * third][::-1]

    def error_of(self, logprobs: Sequence[float], info: ModelInfo) -> tuple[float, float] | None:
        """(maximum, RMS) of |log-prob - float64|, in nats a token, of the path's beginning.

        Raises:
            UnsupportedModel: the difference is larger than rounding explains.
        """
        if self.logprobs is None:
            return None
        errors = [abs(a - b) for a, b in zip(logprobs, self.logprobs, strict=False)]
        largest = _checked(max(errors), "its own reference", info)
        return largest, math.sqrt(math.fsum(error**2 for error in errors) / len(errors))


def check_company(alone: Sequence[float], together: Sequence[float], info: ModelInfo) -> None:
    """Compare a path computed alone with the same one beside another.

    Raises:
        UnsupportedModel: the architecture lets a path see its neighbours.
    """
    largest = max(abs(a - b) for a, b in zip(alone, together, strict=True))
    _checked(largest, "itself when it is computed beside another path", info)


def _checked(difference: float, what: str, info: ModelInfo) -> float:
    if not difference <= LARGEST_ERROR[info.dtype]:
        raise UnsupportedModel(
            f"{info.architecture} differs from {what} by {difference:.2g} nats a token"
        )
    return difference


def take_sample(model: PreTrainedModel) -> Sample:
    """Compute the sample with the reference, where the model is not too large for that."""
    tokens = _tokens(model)
    weights = sum(weight.numel() for weight in model.parameters())
    if 8 * weights > LARGEST_MODEL_BYTES:
        return Sample(tokens, None)
    exact = copy.deepcopy(model).to(torch.float64)
    exact.set_attn_implementation("eager")
    rows = reference_logprobs(exact, tokens)
    logprobs = [float(rows[t - 1, tokens[t]]) for t in range(1, len(tokens))]
    return Sample(tokens, tuple(logprobs))


def _tokens(model: PreTrainedModel) -> tuple[int, ...]:
    """A fixed walk through the vocabulary that visits its whole range."""
    config = model.config.get_text_config()
    length = min(SAMPLE_TOKENS, config.max_position_embeddings)
    return tuple(7919 * (i + 1) * (i + 1) % config.vocab_size for i in range(length))
