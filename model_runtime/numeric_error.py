"""How far this model's log-probabilities are from float64, on a fixed sample of tokens.

The same comparison is the last check of an architecture: a model that path attention would
compute wrongly, by something its config does not tell, is refused before it is served.
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
    """A token path and its exact log-probabilities.

    Attributes:
        tokens: [n] the path.
        logprobs: [n - 1] log P(token | all before it) in float64, from the second token on.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    def error_of(self, logprobs: Sequence[float], info: ModelInfo) -> tuple[float, float]:
        """(maximum, RMS) of |log-prob - float64|, in nats a token, of the path's beginning.

        Raises:
            UnsupportedModel: the difference is larger than rounding explains.
        """
        errors = [abs(a - b) for a, b in zip(logprobs, self.logprobs, strict=False)]
        largest = max(errors)
        if not largest <= LARGEST_ERROR[info.dtype]:
            raise UnsupportedModel(
                f"{info.architecture} differs from its own reference by {largest:.2g} nats a token"
            )
        return largest, math.sqrt(math.fsum(error**2 for error in errors) / len(errors))


def take_sample(model: PreTrainedModel) -> Sample | None:
    """Compute the sample with the reference; None where the model is too large for that."""
    weights = sum(weight.numel() for weight in model.parameters())
    if 8 * weights > LARGEST_MODEL_BYTES:
        return None
    tokens = _tokens(model)
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
