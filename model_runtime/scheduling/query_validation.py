"""What makes a query unanswerable, found before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from model_runtime.errors import InvalidQuery, PathTooLong, RequestTooLarge, TokenIdOutOfRange
from model_runtime.token_set import TokenSet
from model_runtime.types import LogprobQuery


@dataclass(frozen=True, slots=True)
class QueryValidator:
    """The bounds of a model and its cache.

    Attributes:
        vocab_size: a valid id is ``0 <= id < vocab_size``.
        max_model_len: tokens in a path at most, the last scored one included.
        capacity: tokens that the KV cache holds; the last scored token is never fed.
    """

    vocab_size: int
    max_model_len: int
    capacity: int
    _good: list[tuple[int, ...]] = field(default_factory=lambda: [()], repr=False, compare=False)

    def check(self, query: LogprobQuery) -> InvalidQuery | None:
        """Why a query cannot be answered; None where it can."""
        return (
            _check_rows(query)
            or self.check_path(len(query.tokens), query.last_row)
            or self._check_tokens(query)
            or self._check_ids("a target id", query.targets or ())
            or self._check_extras(query)
        )

    def check_path(self, length: int, fed: int | None = None) -> InvalidQuery | None:
        """Why a path of ``length`` tokens, ``fed`` of them (or all but one) fed, cannot be held."""
        if length > self.max_model_len:
            return PathTooLong(
                f"{length} tokens are too many; the model takes {self.max_model_len}"
            )
        fed = length - 1 if fed is None else fed
        if fed > self.capacity:
            return RequestTooLarge(f"{fed} tokens do not fit the KV cache of {self.capacity}")
        return None

    def _check_tokens(self, query: LogprobQuery) -> InvalidQuery | None:
        """The ids of a path. Candidates come with one context, which is looked at once."""
        good, tokens = self._good[0], query.tokens
        if good and good == tokens[: len(good)]:
            return self._check_ids("a token id", tokens[len(good) :])
        wrong = self._check_ids("a token id", tokens)
        if wrong is None:
            self._good[0] = tokens[: query.score_from]
        return wrong

    def _check_ids(self, what: str, ids: Sequence[int]) -> InvalidQuery | None:
        if not ids or (min(ids) >= 0 and max(ids) < self.vocab_size):
            return None
        wrong = next(i for i in ids if not 0 <= i < self.vocab_size)
        return TokenIdOutOfRange(f"{what} is {wrong}, not in 0 .. {self.vocab_size - 1}")

    def _check_extras(self, query: LogprobQuery) -> InvalidQuery | None:
        if not 0 <= query.top_k <= self.vocab_size:
            return InvalidQuery(f"must lie in 0 .. {self.vocab_size}", param="top_k")
        if query.keep is not None and query.keep < 0:
            return InvalidQuery("must not be negative", param="keep")
        if query.logits and query.targets is None:
            return InvalidQuery("logits are of the row after the path", param="logits")
        return self._check_choice(query) or self._check_sets(query) or _check_temperatures(query)

    def _check_choice(self, query: LogprobQuery) -> InvalidQuery | None:
        choice = query.choice
        if choice is None:
            return None
        if query.targets is None:
            return InvalidQuery("a choice needs the row after the path", param="choice")
        if choice.count < 1:
            return InvalidQuery("a choice lists at least one token", param="count")
        if choice.floor is not None and not math.isfinite(choice.floor):
            return InvalidQuery("the floor of a choice must be finite", param="floor")
        return self._check_allowed(choice.allowed)

    def _check_sets(self, query: LogprobQuery) -> InvalidQuery | None:
        if query.token_sets and query.targets is None:
            return InvalidQuery("a token set needs the row after the path", param="token_sets")
        return next(filter(None, map(self._check_vocabulary, query.token_sets)), None)

    def _check_allowed(self, allowed: TokenSet | None) -> InvalidQuery | None:
        if allowed is None:
            return None
        if not allowed:
            return InvalidQuery("a choice needs at least one allowed token", param="allowed")
        return self._check_vocabulary(allowed)

    def _check_vocabulary(self, tokens: TokenSet) -> InvalidQuery | None:
        if tokens.vocab_size == self.vocab_size:
            return None
        return TokenIdOutOfRange(
            f"a set is of tokens of a vocabulary of {tokens.vocab_size}, "
            f"not of the model's {self.vocab_size}"
        )


def _check_rows(query: LogprobQuery) -> InvalidQuery | None:
    if not query.tokens:
        return InvalidQuery("a token path needs at least one token")
    if not 1 <= query.score_from <= len(query.tokens):
        return InvalidQuery(f"must lie in 1 .. {len(query.tokens)}", param="score_from")
    if query.score_from > query.last_row:
        return InvalidQuery("the query scores no token and asks for no next one")
    return None


def _check_temperatures(query: LogprobQuery) -> InvalidQuery | None:
    if query.temperatures and query.targets is None:
        return InvalidQuery("a log-partition needs the row after the path", param="temperatures")
    if all(0 < temperature < math.inf for temperature in query.temperatures):
        return None
    return InvalidQuery("a temperature must be positive and finite", param="temperatures")
