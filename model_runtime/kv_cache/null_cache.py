"""The cache of a runner that keeps nothing between two forwards."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.batching.trie import ROOT_POSITION, TriePosition
from model_runtime.types import EMPTY_RESULT, LogprobQuery, LogprobResult


class NullPrefixCache:
    """A cache that holds nothing, with room for any one path.

    Attributes:
        capacity: tokens of the longest path.
        used, pinned, evicted, row_bytes: always 0.
    """

    used = 0
    pinned = 0
    evicted = 0
    row_bytes = 0

    def __init__(self, longest_path: int) -> None:
        self.capacity = longest_path

    @property
    def room(self) -> int:
        return self.capacity

    def begin(self) -> None:
        """Nothing is held, so nothing has to stay."""

    def match(self, salt: str, tokens: Sequence[int], stop: int, shared: int) -> TriePosition:
        return ROOT_POSITION

    def lookup_rows(self, slots: Sequence[int], query: LogprobQuery, first: int) -> LogprobResult:
        return EMPTY_RESULT

    def allocate(self, count: int) -> list[int]:
        return [0] * count
