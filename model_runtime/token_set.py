"""A set of token ids over one vocabulary: a bit per id, the lowest one of each byte first. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_NON_ZERO = re.compile(rb"[^\0]")


class TokenSet:
    """Immutable and hashable. Which tokens may come next, for one.

    Two sets are equal where they hold the same ids of vocabularies of the same size.

    Attributes:
        vocab_size: every id in the set lies in ``0 .. vocab_size - 1``.
        bits: bit ``id % 8`` of byte ``id // 8`` tells whether an id is in the set.
    """

    __slots__ = ("_len", "bits", "vocab_size")

    bits: bytes
    vocab_size: int
    _len: int

    def __init__(self, bits: bytes, vocab_size: int) -> None:
        """Take over bits; see ``from_bits`` for bits of another length."""
        if len(bits) != -(-vocab_size // 8) or (vocab_size % 8 and bits[-1] >> vocab_size % 8):
            raise ValueError(f"{len(bits)} bytes are no set over {vocab_size} tokens")
        self.bits = bits
        self.vocab_size = vocab_size
        self._len = int.from_bytes(bits, "little").bit_count()

    @classmethod
    def of(cls, ids: Iterable[int], vocab_size: int) -> TokenSet:
        """The set of ``ids``. Raises ``ValueError`` for an id outside the vocabulary."""
        return cls(bytes(_filled(bytearray(-(-vocab_size // 8)), ids, vocab_size)), vocab_size)

    @classmethod
    def all(cls, vocab_size: int) -> TokenSet:
        """Every id of a vocabulary."""
        return cls(((1 << vocab_size) - 1).to_bytes(-(-vocab_size // 8), "little"), vocab_size)

    @classmethod
    def from_bits(cls, bits: bytes, vocab_size: int) -> TokenSet:
        """The set that ``bits`` spell, cut to the vocabulary, or with no ids behind their end."""
        size = -(-vocab_size // 8)
        kept = bytearray(bits[:size].ljust(size, b"\0"))
        if vocab_size % 8:
            kept[-1] &= (1 << vocab_size % 8) - 1
        return cls(bytes(kept), vocab_size)

    def union(self, ids: Iterable[int]) -> TokenSet:
        """With ``ids`` in it. Raises ``ValueError`` for an id outside the vocabulary."""
        return TokenSet(bytes(_filled(bytearray(self.bits), ids, self.vocab_size)), self.vocab_size)

    def without(self, ids: Iterable[int]) -> TokenSet:
        """With none of ``ids`` in it; an id that is not there is no error."""
        bits = bytearray(self.bits)
        for token_id in ids:
            if 0 <= token_id < self.vocab_size:
                bits[token_id >> 3] &= ~(1 << (token_id & 7))
        return TokenSet(bytes(bits), self.vocab_size)

    def intersection(self, other: TokenSet) -> TokenSet:
        """What is in both. Raises ``ValueError`` for a set over another vocabulary."""
        if self.vocab_size != other.vocab_size:
            raise ValueError(f"sets over {self.vocab_size} and {other.vocab_size} tokens")
        both = int.from_bytes(self.bits, "little") & int.from_bytes(other.bits, "little")
        return TokenSet(both.to_bytes(len(self.bits), "little"), self.vocab_size)

    def __contains__(self, token_id: object) -> bool:
        return (
            isinstance(token_id, int)
            and 0 <= token_id < self.vocab_size
            and bool(self.bits[token_id >> 3] >> (token_id & 7) & 1)
        )

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[int]:
        """The ids, ascending."""
        for match in _NON_ZERO.finditer(self.bits):
            first, byte = 8 * match.start(), match.group()[0]
            while byte:
                yield first + (byte & -byte).bit_length() - 1
                byte &= byte - 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenSet):
            return NotImplemented
        return self.vocab_size == other.vocab_size and self.bits == other.bits

    def __hash__(self) -> int:
        return hash((self.vocab_size, self.bits))

    def __repr__(self) -> str:
        shown = ", ".join(str(token_id) for _, token_id in zip(range(8), self, strict=False))
        more = ", ..." if len(self) > 8 else ""
        return f"TokenSet({{{shown}{more}}}, {len(self)} of {self.vocab_size})"


def _filled(bits: bytearray, ids: Iterable[int], vocab_size: int) -> bytearray:
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            raise ValueError(f"token id {token_id} is not in 0 .. {vocab_size - 1}")
        bits[token_id >> 3] |= 1 << (token_id & 7)
    return bits
