"""Completions whose tokens all come from one set, whatever else limits them."""

from __future__ import annotations

from model_runtime.decoding.constraints.constraint import Constraint
from model_runtime.token_set import TokenSet


class TokenMask:
    """The same tokens at every place. A ``Constraint``, alone or around another one.

    Alone it lets a completion end anywhere. Which end tokens there are is not its business: leave
    those that are not allowed out of ``DecodingLimits.end_token_ids``.

    Args:
        tokens: the only ones that may be generated.
        inner: what a completion must be besides; None for anything.
    """

    __slots__ = ("_inner", "_tokens")

    def __init__(self, tokens: TokenSet, inner: Constraint | None = None) -> None:
        self._tokens = tokens
        self._inner = inner

    @property
    def allowed(self) -> TokenSet:
        """The tokens that both allow."""
        if self._inner is None:
            return self._tokens
        return self._inner.allowed.intersection(self._tokens)

    @property
    def may_end(self) -> bool:
        """Whether an end token may come next."""
        return self._inner is None or self._inner.may_end

    @property
    def complete(self) -> bool:
        """Whether the inner constraint is satisfied without an end token."""
        return self._inner is not None and self._inner.complete

    @property
    def size_words(self) -> int:
        """About the 8-byte words of memory that this state takes; the set is shared."""
        return 5 + (0 if self._inner is None else self._inner.size_words)

    def push(self, token_id: int) -> TokenMask:
        """The state after one more token."""
        if self._inner is None:
            return self
        return TokenMask(self._tokens, self._inner.push(token_id))
