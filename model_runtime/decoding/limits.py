"""When a completion may end, and when it must."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from model_runtime.decoding.constraints.constraint import Constraint
from model_runtime.decoding.constraints.stop_strings import StopMatcher
from model_runtime.decoding.hypothesis import FinishReason
from model_runtime.errors import InvalidQuery, NothingFollows
from model_runtime.token_set import TokenSet


@dataclass(frozen=True, slots=True)
class CompletionState:
    """Where a completion stands by its limits.

    Attributes:
        length: generated tokens so far.
        stop: the matcher after them; None where there are no stops.
        constraint: its state after them, but for an end token; None where there is none.
        finish_reason: why the completion is one; None while it is none.
    """

    length: int
    stop: StopMatcher | None
    constraint: Constraint | None
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """The bounds of a completion, common to all search strategies.

    A completion ends with an end token, with the token that completes a stop or what the
    constraint asks for, or with token number ``max_tokens``. The first ``min_tokens`` tokens end
    nothing: an end token is not chosen among them (as with ``min_new_tokens`` of ``generate``, it
    may be the one after them), and a stop that is complete within them does not count and stays
    in the text. What a constraint asks for counts from ``min_tokens`` tokens on.

    Stops and a constraint hold side by side. A path that ``max_tokens`` ends before it is what
    the constraint asks for is reported as any other of that length: by its ``FinishReason``.

    Attributes:
        max_tokens: generated tokens at most, the end token included; at least 1.
        min_tokens: generated tokens before an end or a stop counts.
        end_token_ids: the model's end ids and the caller's stop ids; empty to ignore ends.
        stop: the stops, before any generated token; None for none.
        top_logprobs: so many most probable tokens are reported at each generated token.
        constraint: what a completion may be, before any generated token; None for anything.

    Raises:
        InvalidQuery: a number is out of its range, or ``min_tokens`` exceeds ``max_tokens``.
    """

    max_tokens: int
    min_tokens: int = 0
    end_token_ids: frozenset[int] = frozenset()
    stop: StopMatcher | None = None
    top_logprobs: int = 0
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InvalidQuery("must be at least 1", param="max_tokens")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise InvalidQuery("must lie in 0 .. max_tokens", param="min_tokens")
        if self.top_logprobs < 0:
            raise InvalidQuery("must not be negative", param="top_logprobs")

    def begin(self) -> CompletionState:
        """No token generated yet."""
        return CompletionState(0, self.stop, self.constraint)

    def push(self, state: CompletionState, token_id: int) -> CompletionState:
        """The state after one more token, one of those that are ``allowed``."""
        length = state.length + 1
        stop = state.stop.push(token_id) if state.stop is not None else None
        if token_id in self.end_token_ids:
            # An end token is no text: what its bytes would complete is no stop.
            return CompletionState(length, stop, state.constraint, FinishReason.END)
        constraint = state.constraint.push(token_id) if state.constraint is not None else None
        reason = FinishReason.LENGTH if length == self.max_tokens else None
        if constraint is not None and constraint.complete and length >= self.min_tokens:
            reason = FinishReason.COMPLETE
        if stop is not None and stop.matched and length > self.min_tokens:
            reason = FinishReason.STOP
        return CompletionState(length, stop, constraint, reason)

    def masked_ids(self, length: int) -> frozenset[int]:
        """The ids that may not follow ``length`` generated tokens."""
        return self.end_token_ids if length < self.min_tokens else frozenset()

    def allowed(
        self, length: int, vocab_size: int, constraint: Constraint | None
    ) -> TokenSet | None:
        """The ids that may follow ``length`` generated tokens; None for all.

        Args:
            length: generated tokens so far.
            vocab_size: rows of the model's head.
            constraint: its state after them.
        """
        if constraint is None:
            masked = self.masked_ids(length)
            return _all_but(masked, vocab_size) if masked else None
        allowed = constraint.allowed.without(self.end_token_ids)
        if not constraint.may_end or length < self.min_tokens:
            return allowed
        return allowed.union(i for i in self.end_token_ids if 0 <= i < vocab_size)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise ``InvalidQuery`` where there is no first token to choose, ``NothingFollows`` where
        a constraint leaves none."""
        allowed = self.allowed(0, vocab_size, self.constraint)
        if allowed is None or allowed:
            return
        if self.constraint is None:
            raise InvalidQuery("every token ends a completion", param="min_tokens")
        raise NothingFollows("the constraint leaves no first token to choose")


@lru_cache(maxsize=64)
def _all_but(ids: frozenset[int], vocab_size: int) -> TokenSet:
    return TokenSet.all(vocab_size).without(ids)
