"""Greedy decoding: the most probable token, again and again."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.decoding.base import Answer
from model_runtime.decoding.hypothesis import DecodingResult
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.prefix import Prefix, next_row
from model_runtime.errors import NonFiniteLogits
from model_runtime.types import LogprobQuery


class GreedySearch:
    """At each step the argmax over the tokens that may come next; of equals the smallest id.

    Its score is the log-probability of the whole completion. A ``SearchStrategy``.

    Args:
        prompt: token ids; at least one.
        limits: when the completion ends.
        vocab_size: rows of the model's head.
        cache_salt: whom the prompt's computation may be shared with.

    Raises:
        InvalidQuery: the prompt is empty, or the limits leave nothing to choose.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        limits: DecodingLimits,
        *,
        vocab_size: int,
        cache_salt: str = "",
    ) -> None:
        limits.check_vocabulary(vocab_size)
        self._prefix = Prefix.start(prompt, limits)
        self._limits = limits
        self._vocab_size = vocab_size
        self._cache_salt = cache_salt
        # The last token is generated, never fed.
        self.longest_path = len(self._prefix.tokens) + limits.max_tokens
        self.cost = self.longest_path - 1

    @property
    def done(self) -> bool:
        """Whether the completion has ended."""
        return self._prefix.finish_reason is not None

    def queries(self) -> Sequence[LogprobQuery]:
        """One query: what comes next."""
        width = self._limits.row_width(1, self._prefix.length, self._vocab_size)
        return (self._prefix.query(width, self._cache_salt),)

    def advance(self, answers: Sequence[Answer]) -> None:
        """Append the best token. Raises what the query failed with."""
        (answer,) = answers
        row = next_row(answer)
        choice = next(self._prefix.choices(row, self._limits), None)
        if choice is None:
            raise NonFiniteLogits("no token that may come next has any probability")
        self._prefix = self._prefix.extend(row, choice[0], self._limits)

    def result(self) -> DecodingResult:
        """The one completion."""
        return DecodingResult((self._prefix.hypothesis(self._prefix.logprob),))
