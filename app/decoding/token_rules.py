"""What other APIs ask of the tokens of a completion, beside what the native route knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from model_runtime import ModelInfo, Tokenizer, TokenSet


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Which tokens may be generated, and which of them are text.

    Attributes:
        allowed_ids: the only tokens that may be generated, end tokens among them; None for all.
        forbidden_ids: tokens that may not, end tokens among them.
        hides_control: control tokens are no part of the text. Stops are looked for in the text
            that is left, and one that spells a control token ends a completion with that token.
    """

    allowed_ids: frozenset[int] | None = None
    forbidden_ids: frozenset[int] = frozenset()
    hides_control: bool = False

    @property
    def masks(self) -> bool:
        """Whether some token may not be generated."""
        return self.allowed_ids is not None or bool(self.forbidden_ids)

    def mask(self, vocab_size: int) -> TokenSet | None:
        """The tokens that may be generated; None for all. Raises ``ValueError`` for a bad id."""
        return _mask(self.allowed_ids, self.forbidden_ids, vocab_size) if self.masks else None

    def end_ids(
        self, tokenizer: Tokenizer, info: ModelInfo, stops: Sequence[str], *, ignore_eos: bool
    ) -> frozenset[int]:
        """The tokens that end a completion: those that the model and the stops name, as far as they
        may be generated."""
        ends = set(() if ignore_eos else info.end_token_ids)
        if self.hides_control and stops:
            spelt = {stop.encode() for stop in stops}
            ends |= {i for i in tokenizer.control_ids if tokenizer.token_bytes(i) in spelt}
        if self.allowed_ids is not None:
            ends &= self.allowed_ids
        return frozenset(ends - self.forbidden_ids)

    def text_bytes(self, tokenizer: Tokenizer) -> Callable[[int], bytes]:
        """What a generated token adds to the text, by its id."""
        if not self.hides_control:
            return tokenizer.token_bytes
        hidden = tokenizer.control_ids
        return lambda token_id: b"" if token_id in hidden else tokenizer.token_bytes(token_id)


# The prompts of one request share it.
@lru_cache(maxsize=4)
def _mask(
    allowed_ids: frozenset[int] | None, forbidden_ids: frozenset[int], vocab_size: int
) -> TokenSet:
    if allowed_ids is None:
        return TokenSet.all(vocab_size).without(forbidden_ids)
    return TokenSet.of(allowed_ids, vocab_size).without(forbidden_ids)


NO_RULES = TokenRules()
"""What the native route asks."""
