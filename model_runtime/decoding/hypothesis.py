"""What a search ends with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from model_runtime.decoding.certificate import Certificate
from model_runtime.types import TokenLogprob, total


class FinishReason(StrEnum):
    """Why a completion ends where it does."""

    END = "end"
    STOP = "stop"
    COMPLETE = "complete"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished completion of n tokens with the model's own, never renormalised, numbers.

    Attributes:
        token_ids: [n] generated ids; the end token is the last one where it ended with one.
        token_logprobs: [n] natural logs, each conditional on all tokens before it.
        token_ranks: [n] 1 + the number of tokens that were strictly more probable.
        top: [n][top_logprobs] most probable first; empty when not asked.
        score: what the search ranked it by: higher is better.
        finish_reason: why it ends.
        stop_span: [begin, end) of the stop in the bytes of all generated tokens; the text
            before the stop is the bytes before ``begin``. None unless a stop ended it.
    """

    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    token_ranks: tuple[int, ...]
    top: tuple[tuple[TokenLogprob, ...], ...]
    score: float
    finish_reason: FinishReason
    stop_span: tuple[int, int] | None = None

    @property
    def logprob(self) -> float:
        """log P(all generated tokens | prompt), in nats."""
        return total(self.token_logprobs)


@dataclass(frozen=True, slots=True)
class DecodingResult:
    """The completions that a search returns, best first.

    Attributes:
        hypotheses: none where a search with a certificate found none.
        certificate: what is proven; None of a search that proves nothing.
    """

    hypotheses: tuple[Hypothesis, ...]
    certificate: Certificate | None = None
