"""A vocabulary by its bytes: which tokens go on with a text, and which reach its end. Pure.

Sorted by bytes, tokens that begin alike lie side by side, so a node of the trie is a range::

    tokens   ...  i   ic   in   is   isl   isn   it  ...
    "is"          ^ a step         └───────────┘ covering: they reach the end, or overrun it
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from model_runtime.token_set import TokenSet

REMEMBERED = 512
"""Rests whose continuations are remembered; each may hold a set of the whole vocabulary."""

WIDE_SHARE = 64
"""Sets of more than this part of the vocabulary are made once, when the trie is."""

TRIES = 4
"""Vocabularies whose tries are kept."""


class Spelling(Protocol):
    """What is needed of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def head_rows(self) -> int: ...

    @property
    def control_ids(self) -> frozenset[int]: ...

    def token_bytes(self, token_id: int) -> bytes: ...


class Step(NamedTuple):
    """A token that spells so many bytes of a rest."""

    token_id: int
    size: int


class Continuations(NamedTuple):
    """The tokens with which a rest of text may begin, or that may begin with the rest.

    Attributes:
        steps: tokens that spell a proper prefix of the rest, shorter ones first.
        exact: ids of the tokens that spell just the rest.
        covering: the tokens whose bytes begin with the whole rest, ``exact`` among them.
    """

    steps: tuple[Step, ...]
    exact: tuple[int, ...]
    covering: TokenSet


class VocabularyTrie:
    """The tokens that stand for text. Never changed, so safe to share across threads.

    Args:
        spellings: bytes by token id; a token without bytes is no text.
        head_rows: rows of the model's head, at least as many.
        excluded: ids that are no text either.

    Attributes:
        head_rows: as given: what its sets are over.
        longest: bytes of the longest token.
    """

    def __init__(
        self, spellings: Sequence[bytes], head_rows: int, excluded: Container[int] = ()
    ) -> None:
        tokens = sorted(
            (text, token_id)
            for token_id, text in enumerate(spellings)
            if text and token_id not in excluded
        )
        self._texts = [text for text, _ in tokens]
        self._ids = [token_id for _, token_id in tokens]
        self.head_rows = head_rows
        self._none = TokenSet.of((), head_rows)
        self._wide = dict(self._wide_sets())
        self._find = lru_cache(REMEMBERED)(self._look_up)
        self.longest = max(map(len, self._texts), default=0)

    def continuations(self, rest: bytes) -> Continuations:
        """How ``rest`` may go on. Of the empty one every token is ``covering``."""
        # What lies behind the longest token makes no difference.
        return self._find(rest[: self.longest + 1])

    def is_text(self, token_id: int) -> bool:
        """Whether a token is in the trie."""
        return token_id in self.continuations(b"").covering

    def spell(self, text: bytes) -> tuple[int, ...]:
        """Some tokens that spell ``text``, the longest possible one first; none where it fails."""
        ids: list[int] = []
        start = 0
        while start < len(text):
            found = self.continuations(text[start:])
            if found.exact:
                return (*ids, found.exact[0])
            if not found.steps:
                return ()
            step = found.steps[-1]
            ids.append(step.token_id)
            start += step.size
        return tuple(ids)

    def _look_up(self, rest: bytes) -> Continuations:
        low, high = 0, len(self._texts)
        steps: list[Step] = []
        exact: tuple[int, ...] = ()
        for size in range(1, len(rest) + 1):
            low, high = self._narrow(rest[:size], low, high)
            if low == high:
                break
            exact = tuple(self._ids[place] for place in self._spelled(low, high, size))
            if size < len(rest):
                steps += (Step(token_id, size) for token_id in exact)
        return Continuations(tuple(steps), exact if low < high else (), self._set(rest, low, high))

    def _narrow(self, start: bytes, low: int, high: int) -> tuple[int, int]:
        """The part of [low, high) whose tokens begin with ``start``."""
        low = bisect_left(self._texts, start, low, high)
        beyond = _beyond(start)
        return low, high if beyond is None else bisect_left(self._texts, beyond, low, high)

    def _spelled(self, low: int, high: int, size: int) -> Iterator[int]:
        """Of tokens with the same first ``size`` bytes, the places of those that have no more."""
        for place in range(low, high):
            if len(self._texts[place]) > size:
                return
            yield place

    def _set(self, start: bytes, low: int, high: int) -> TokenSet:
        if low == high:
            return self._none
        return self._wide.get(start) or TokenSet.of(self._ids[low:high], self.head_rows)

    def _wide_sets(self) -> Iterator[tuple[bytes, TokenSet]]:
        """The sets that take long to make, by what their tokens begin with."""
        open_nodes = [(b"", 0, len(self._texts))]
        while open_nodes:
            start, low, high = open_nodes.pop()
            if start and (high - low) * WIDE_SHARE <= self.head_rows:
                continue
            yield start, TokenSet.of(self._ids[low:high], self.head_rows)
            open_nodes += self._children(start, low, high)

    def _children(self, start: bytes, low: int, high: int) -> Iterator[tuple[bytes, int, int]]:
        size = len(start)
        low = max(self._spelled(low, high, size), default=low - 1) + 1
        while low < high:
            child = self._texts[low][: size + 1]
            _, stop = self._narrow(child, low, high)
            yield child, low, stop
            low = stop


@lru_cache(TRIES)
def vocabulary_trie(tokenizer: Spelling, ends: frozenset[int]) -> VocabularyTrie:
    """The text tokens of a tokenizer: all that have bytes but control tokens and ``ends``.

    Made at the first call, which takes about a tenth of a second for 50,000 tokens.
    """
    spellings = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)]
    return VocabularyTrie(spellings, tokenizer.head_rows, tokenizer.control_ids | ends)


def _beyond(start: bytes) -> bytes | None:
    """The least text that comes after all that begin with ``start``; None where nothing does."""
    node = start.rstrip(b"\xff")
    return node[:-1] + bytes([node[-1] + 1]) if node else None
