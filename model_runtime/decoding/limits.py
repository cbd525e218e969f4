"""When a completion may end, and when it must."""

from __future__ import annotations

from dataclasses import dataclass

from model_runtime.decoding.stopping import StopMatcher
from model_runtime.errors import InvalidQuery


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """The bounds of a completion, common to all search strategies.

    A completion ends with an end token, with the token that completes a stop, or with token
    number ``max_tokens``. The first ``min_tokens`` tokens end nothing: an end token is not
    chosen among them (as with ``min_new_tokens`` of ``generate``, it may be the one after
    them), and a stop that is complete within them does not count and stays in the text.

    Attributes:
        max_tokens: generated tokens at most, the end token included; at least 1.
        min_tokens: generated tokens before an end or a stop counts.
        end_token_ids: the model's end ids and the caller's stop ids; empty to ignore ends.
        stop: the stops, before any generated token; None for none.
        top_logprobs: so many most probable tokens are reported at each generated token.

    Raises:
        InvalidQuery: a number is out of its range, or ``min_tokens`` exceeds ``max_tokens``.
    """

    max_tokens: int
    min_tokens: int = 0
    end_token_ids: frozenset[int] = frozenset()
    stop: StopMatcher | None = None
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InvalidQuery("max_tokens must be at least 1", param="max_tokens")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise InvalidQuery("min_tokens must lie in 0 .. max_tokens", param="min_tokens")
        if self.top_logprobs < 0:
            raise InvalidQuery("top_logprobs must not be negative", param="top_logprobs")

    def masked_ids(self, length: int) -> frozenset[int]:
        """The ids that may not follow ``length`` generated tokens."""
        return self.end_token_ids if length < self.min_tokens else frozenset()

    def row_width(self, wanted: int, length: int, vocab_size: int) -> int:
        """The ``top_k`` that surely holds the ``wanted`` best tokens that may come next.

        Args:
            wanted: tokens to choose from.
            length: generated tokens so far.
            vocab_size: no row is wider than this.
        """
        return min(vocab_size, max(wanted + len(self.masked_ids(length)), self.top_logprobs))

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise ``InvalidQuery`` where ``min_tokens`` would leave no token to choose."""
        ends = sum(0 <= token_id < vocab_size for token_id in self.end_token_ids)
        if self.min_tokens and ends == vocab_size:
            raise InvalidQuery("every token ends a completion", param="min_tokens")
