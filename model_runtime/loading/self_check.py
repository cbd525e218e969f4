"""How far this model's log-probabilities are from float64, on a fixed sample of tokens.

The same sample is the last check of an architecture: a model that would be computed wrongly, or
whose paths would see their neighbours, by something that its config does not tell, is refused
before it is served.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from model_runtime.errors import UnsupportedModel
from model_runtime.loading.reference import reference_logprobs
from model_runtime.types import ModelInfo

SAMPLE_TOKENS = 160
"""Long enough to cross a key block."""

LARGEST_MODEL_BYTES = 4 << 30
"""Of float64 weights. A larger model would double the memory that a start needs, so it is
compared with its own plain forward in float32 instead."""

LARGEST_ERROR = {"float32": 0.01, "bfloat16": 1.0}
"""In nats a token. Beyond it the forward is wrong, not rounded."""


@dataclass(frozen=True, slots=True)
class ReferenceSample:
    """A token path, and what a plain forward says of it.

    Attributes:
        tokens: [n] the path.
        logprobs: [n - 1] log P(token | all before it), from the second token on.
        exact: they are float64, so that a difference is the served model's error.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    exact: bool = True

    def paths(self, longest: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The path, and a shorter one that leaves it at a third; at most ``longest`` tokens."""
        path = self.tokens[:longest]
        third = max(1, len(path) // 3)
        return path, path[:third] + path[third : 2 * third][::-1]

    def error_of(self, logprobs: Sequence[float], info: ModelInfo) -> tuple[float, float] | None:
        """(maximum, RMS) of |log-prob - float64|, in nats a token, of the path's beginning.

        None where float64 was too large to compute; what is wrong is refused all the same.

        Raises:
            UnsupportedModel: the difference is larger than rounding explains.
        """
        errors = [abs(a - b) for a, b in zip(logprobs, self.logprobs, strict=False)]
        largest = _checked(max(errors), "its own reference", info)
        if not self.exact:
            return None
        return largest, math.sqrt(math.fsum(error**2 for error in errors) / len(errors))

    def unexplained(self, logprobs: Sequence[float], dtype: str) -> float | None:
        """The largest difference of the path's beginning, where it is more than rounding."""
        pairs = zip(logprobs, self.logprobs, strict=False)
        largest = max(abs(a - b) for a, b in pairs)
        return None if largest <= LARGEST_ERROR[dtype] else largest


def check_cached(whole: Sequence[float], tail: Sequence[float], info: ModelInfo) -> None:
    """Compare the end of a path computed whole with the same rows behind a cached prefix.

    Raises:
        UnsupportedModel: the architecture keeps more of a path than its keys and values.
    """
    pairs = zip(whole[-len(tail) :], tail, strict=True)
    largest = max(abs(a - b) for a, b in pairs)
    _checked(largest, "itself when the beginning of its path is cached", info)


def check_batch_invariance(
    alone: Sequence[float], together: Sequence[float], info: ModelInfo
) -> None:
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


def compute_reference(
    model: PreTrainedModel, longest: int, free_bytes: int | None = None
) -> ReferenceSample:
    """Compute the sample with the reference, before a runner takes the model over.

    Args:
        longest: the longest path, in tokens.
        free_bytes: what float64 weights may take; None where only their own limit counts.
    """
    tokens = _tokens(model.config.get_text_config().vocab_size, min(SAMPLE_TOKENS, longest))
    most = LARGEST_MODEL_BYTES if free_bytes is None else min(LARGEST_MODEL_BYTES, free_bytes)
    exact = 8 * sum(weight.numel() for weight in model.parameters()) <= most
    oracle = copy.deepcopy(model).to(torch.float64) if exact else model
    with _plain(oracle):
        rows = reference_logprobs(oracle, tokens)
    logprobs = [float(rows[t - 1, tokens[t]]) for t in range(1, len(tokens))]
    return ReferenceSample(tokens, tuple(logprobs), exact)


@contextmanager
def _plain(model: PreTrainedModel) -> Iterator[None]:
    """Attention and experts one after the other, as the model's own code spells them out."""
    attention, experts = model.config._attn_implementation, model.get_experts_implementation()
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")  # the grouped product has no float64
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        model.set_experts_implementation(experts)


def _tokens(vocab_size: int, length: int) -> tuple[int, ...]:
    """A fixed walk through the vocabulary that visits its whole range."""
    return tuple(7919 * (i + 1) * (i + 1) % vocab_size for i in range(length))
