"""What a completion may be, token by token, as an immutable state machine."""

from __future__ import annotations

from typing import Protocol

from model_runtime.token_set import TokenSet


class Constraint(Protocol):
    """Where one token path stands with respect to the completions that there may be. Immutable.

    A constraint only takes tokens away: those that are left keep the model's own log-probs, which
    are never renormalised. Where it allows nothing and the path may not end either, the path is a
    dead end and no completion.
    """

    @property
    def allowed(self) -> TokenSet:
        """The tokens, end tokens aside, that may come next."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether an end token may come next."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the completion may end right here, without an end token."""
        ...

    @property
    def size_words(self) -> int:
        """About the 8-byte words of memory that this state takes."""
        ...

    def push(self, token_id: int) -> Constraint:
        """The state after one more token, which is an allowed one and no end token."""
        ...
