"""Greedy decoding: the most probable token, again and again."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.decoding.hypothesis import DecodingResult
from model_runtime.decoding.hypothesis_path import (
    GeneratedStep,
    PartialHypothesis,
    next_row,
    no_completion_error,
)
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.types import LogprobQuery, QueryResult


class GreedySearch:
    """At each step the argmax over the tokens that may come next; of equals the smallest id.

    Its score is the log-probability of the whole completion. It ends where it first may, and
    with ``InvalidQuery`` where a constraint leads it to where nothing may follow. A
    ``SearchStrategy``.

    Args:
        prompt: token ids; at least one.
        limits: when the completion ends.
        vocab_size: rows of the model's head.

    Raises:
        InvalidQuery: the prompt is empty, or the limits leave nothing to choose.
    """

    def __init__(self, prompt: Sequence[int], limits: DecodingLimits, *, vocab_size: int) -> None:
        limits.check_vocabulary(vocab_size)
        self._prefix = PartialHypothesis.start(prompt, limits)
        self._limits = limits
        self._vocab_size = vocab_size
        # The last token is generated, never fed.
        self.longest_path = len(self._prefix.tokens) + limits.max_tokens
        self.cost = self.longest_path - 1

    @property
    def done(self) -> bool:
        """Whether the completion has ended."""
        return self._prefix.finish_reason is not None

    @property
    def last(self) -> GeneratedStep | None:
        """The last token that was chosen; None before the first."""
        return self._prefix.last

    def queries(self) -> Sequence[LogprobQuery]:
        """One query: what comes next."""
        return (self._prefix.query(self._limits, 1, self._vocab_size),)

    def advance(self, answers: Sequence[QueryResult]) -> None:
        """Append the best token. Raises what the query failed with."""
        (answer,) = answers
        row = next_row(answer)
        if not row.choices:
            raise no_completion_error(self._limits)
        self._prefix = self._prefix.extend(row, 0, self._limits)

    def result(self) -> DecodingResult:
        """The one completion."""
        return DecodingResult((self._prefix.hypothesis(self._prefix.logprob),))
