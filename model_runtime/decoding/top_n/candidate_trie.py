"""The trie of a closed set of candidates, without its nodes: ranges of the sorted paths.

A node is a path that begins some candidates. In sorted order these stand side by side::

    sorted   0  a          depth 1 behind "a": range 0 .. 3
             1  a b          one ends there (0), two go on:
             2  a b c        child "b", range 1 .. 3
             3  d
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, starmap
from typing import NamedTuple

from model_runtime.token_paths import common_prefix, path_order


class CandidateRange(NamedTuple):
    """The candidates in places ``first .. stop - 1``, which share their first ``depth`` tokens."""

    first: int
    stop: int
    depth: int


class CandidateTrie:
    """Candidates in the order of their token paths.

    Args:
        paths: token ids of each candidate; none is empty. Equal paths may occur.
        end: an end token is scored behind every candidate, so its last token is fed too.

    Attributes:
        order: index of the candidate at each place.
        paths: its path.
    """

    def __init__(self, paths: Sequence[tuple[int, ...]], *, end: bool) -> None:
        self.order = path_order(paths)
        self.paths = [paths[index] for index in self.order]
        unfed = 0 if end else 1
        self._fed = [len(path) - unfed for path in self.paths]
        self._shared = [0, *starmap(common_prefix, pairwise(self.paths))]
        shared_fed = [0, *map(min, self._shared[1:], self._fed, self._fed[1:])]
        own = (fed - shared for fed, shared in zip(self._fed, shared_fed, strict=True))
        self._fed_before = [0, *accumulate(own)]

    @property
    def root(self) -> CandidateRange:
        """All of them, nothing read yet."""
        return CandidateRange(0, len(self.paths), 0)

    def path(self, node: CandidateRange) -> tuple[int, ...]:
        """The tokens that a node's candidates share."""
        return self.paths[node.first][: node.depth]

    def split(self, node: CandidateRange) -> tuple[range, list[tuple[int, CandidateRange]]]:
        """The places of the candidates that end at a node, and its children by next token."""
        first, stop, depth = node
        while first < stop and len(self.paths[first]) == depth:
            first += 1
        return range(node.first, first), list(self._children(first, stop, depth))

    def equal_paths(self, node: CandidateRange) -> Iterator[range]:
        """The places of each distinct path behind a node."""
        start = node.first
        for place in range(node.first + 1, node.stop + 1):
            if place == node.stop or self.paths[place] != self.paths[start]:
                yield range(start, place)
                start = place

    def has_children(self, node: CandidateRange) -> bool:
        """Whether more is fed behind a node, once its children are known."""
        return max(self._fed[node.first : node.stop]) > node.depth

    def extend_shared(self, node: CandidateRange, most: int) -> CandidateRange:
        """The same candidates behind what else they share, up to ``most`` tokens more.

        A token of each, or its end, is left to be asked for.
        """
        first, stop, depth = node
        # Whichever ends first among them stands first.
        shared = min((self._fed[first], *self._shared[first + 1 : stop]))
        return node._replace(depth=max(depth, min(depth + most, shared)))

    def tokens(self, node: CandidateRange) -> int:
        """Tokens that are fed to score all that is behind a node, its own last token included."""
        first, stop, depth = node
        others = self._fed_before[stop] - self._fed_before[first + 1]
        return 1 + max(0, self._fed[first] - depth) + others

    def _children(self, first: int, stop: int, depth: int) -> Iterator[tuple[int, CandidateRange]]:
        start = first
        for place in range(first + 1, stop + 1):
            if place == stop or self._shared[place] <= depth:
                yield self.paths[start][depth], CandidateRange(start, place, depth + 1)
                start = place
