"""What a best-first search asks about a path: only continuations that may matter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from model_runtime.decoding.best_first.top_k import TopK
from model_runtime.decoding.hypothesis_path import PartialHypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.objective import Objective
from model_runtime.token_set import TokenSet
from model_runtime.types import LogprobQuery

Feasible = Literal["any", "ended"]
"""Which completions count: all, or only those that end before ``max_tokens`` cuts them."""

FIRST_COUNT = 64
"""Continuations that a path is first asked for."""

ROUNDING = 1e-5
"""How far, absolutely and relative to it, a query's floor lies below the exact one: log-probs
are compared as float32 there and added up as float64 here."""


class ExpansionQueries:
    """Asks for next tokens by count and by the log-probability that they would have to have.

    Args:
        limits: when a completion ends.
        objective: what completions are ranked by.
        best: which of them are wanted.
        feasible: whether those that only ``max_tokens`` ends count.
        vocab_size: rows of the model's head.
        beam_count: continuations that a beam search needs of a path.
    """

    def __init__(
        self,
        limits: DecodingLimits,
        objective: Objective,
        best: TopK,
        *,
        feasible: Feasible,
        vocab_size: int,
        beam_count: int,
    ) -> None:
        self._limits = limits
        self._objective = objective
        self._best = best
        self._vocab_size = vocab_size
        self._only_ended = feasible == "ended"
        self._first_count = min(vocab_size + 1, max(FIRST_COUNT, beam_count))
        ends = (token_id for token_id in limits.end_token_ids if 0 <= token_id < vocab_size)
        self._ends = TokenSet.of(ends, vocab_size)

    def cuts(self, length: int) -> bool:
        """Whether every continuation of ``length`` tokens is a completion that counts."""
        return length + 1 == self._limits.max_tokens and not self._only_ended

    def first_count(self, prefix: PartialHypothesis) -> int:
        """How many continuations of a path are asked for at first.

        The last token's are completions, so no more of them matter than there are places.
        """
        count = self._first_count
        return min(count, self._best.places) if self.cuts(prefix.length) else count

    def next_count(self, count: int) -> int:
        """How many are asked for where ``count`` were not enough.

        One more than there are, so that fewer always come back where these are all.
        """
        return min(self._vocab_size + 1, 2 * count)

    def query(self, prefix: PartialHypothesis, count: int) -> LogprobQuery:
        """Asks for the ``count`` best continuations among those that may matter now."""
        query = prefix.query(self._limits, count, self._vocab_size, self._floor(prefix))
        if query.choice is not None and self._ends and self._ends_by_token_only(prefix):
            query = replace(query, choice=replace(query.choice, allowed=self._ends))
        return query

    def _floor(self, prefix: PartialHypothesis) -> float | None:
        least = self._objective.least_sum(self._best.cut, prefix.length + 1)
        floor = least - prefix.logprob
        floor -= ROUNDING * (1.0 + abs(floor))
        return floor if math.isfinite(floor) else None

    def _ends_by_token_only(self, prefix: PartialHypothesis) -> bool:
        """The next token is the last one and only an end token makes the completion count."""
        free = self._limits.stop is None and self._limits.constraint is None
        last = prefix.length + 1 == self._limits.max_tokens
        return self._only_ended and last and free
