"""The token trie: every distinct token path of a batch, held once.

Runs of tokens without a branch share a node, so a node is a segment of positions::

    root ── [x0 x1 x2 x3] ──┬── [a0 a1]          candidate 1 = x + a
            start 0, stop 4 └── [b0] ──┬── [b1]   candidates 2 and 3 share b0
                                       └── [c1]

A node's identity is its whole path from the root, and roots are told apart by salt. Two
tokens are the same node only when everything before them is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from model_runtime.token_paths import common_prefix
from model_runtime.types import LogprobQuery


class TrieNode:
    """The tokens at positions ``start .. stop - 1`` of every path through this node.

    Attributes:
        tokens: the segment's token ids; empty only at a root.
        start, stop: absolute positions, ``stop = start + len(tokens)``.
        slots: where each token's key and value lie in the KV storage.
        fed_from: absolute position from which on the tokens are fed in this batch.
        first_row: batch row of the token at ``fed_from``.
        last_used: the batch that matched this node last; only the prefix cache sets it.
        children: by first token, in order of insertion.
    """

    __slots__ = (
        "children",
        "fed_from",
        "first_row",
        "last_used",
        "parent",
        "slots",
        "start",
        "tokens",
    )

    def __init__(self, tokens: tuple[int, ...], start: int, parent: TrieNode | None) -> None:
        self.tokens = tokens
        self.start = start
        self.parent = parent
        self.children: dict[int, TrieNode] = {}
        self.slots: list[int] = []
        self.fed_from = start + len(tokens)
        self.first_row = -1
        self.last_used = 0

    @property
    def stop(self) -> int:
        return self.start + len(self.tokens)

    @property
    def fed_tokens(self) -> int:
        return self.stop - self.fed_from

    def split(self, position: int) -> TrieNode:
        """Cut before ``position``; this node keeps the tail, the new parent is returned."""
        cut = position - self.start
        head = TrieNode(self.tokens[:cut], self.start, self.parent)
        if self.parent is not None:
            self.parent.children[head.tokens[0]] = head
        head.slots, self.slots = self.slots[:cut], self.slots[cut:]
        head.fed_from = min(self.fed_from, position)
        head.last_used = self.last_used
        self.tokens = self.tokens[cut:]
        self.start = position
        self.fed_from = max(self.fed_from, position)
        self.parent = head
        head.children[self.tokens[0]] = self
        return head


class _Root(TrieNode):
    """Where all paths of a salt begin: no tokens, no slots."""

    __slots__ = ("salt",)

    def __init__(self, salt: str) -> None:
        super().__init__((), 0, None)
        self.salt = salt


class TriePosition(NamedTuple):
    """How far a path is in a trie: it agrees with ``node`` and all above it, up to ``depth``.

    A place at the end of its node stays right while nodes are split: they keep their ends.
    """

    node: TrieNode
    depth: int

    def truncated(self, depth: int) -> TriePosition:
        """The place of the same path cut to ``depth`` tokens, where it is not shorter already."""
        node, depth = self.node, min(depth, self.depth)
        while node.start >= depth and node.parent is not None:
            node = node.parent
        return TriePosition(node, depth)

    def shared(self, other: TriePosition) -> int:
        """How many leading tokens this path and another of the same trie have in common."""
        (mine, stop), (its, its_stop) = self, other
        while mine is not its:
            if mine.start < its.start or mine.parent is None:
                (mine, stop), (its, its_stop) = (its, its_stop), (mine, stop)
            if mine.parent is None:
                return 0
            stop, mine = mine.start, mine.parent
        return min(stop, its_stop)

    def nodes(self) -> Iterator[tuple[TrieNode, int]]:
        """The nodes of the path, deepest first, each with where the path leaves it."""
        node: TrieNode | None = self.node
        stop = self.depth
        while node is not None and node.tokens:
            yield node, stop
            stop, node = node.start, node.parent

    def count_unfed(self, fed_from: int) -> int:
        """How many tokens of the path from ``fed_from`` on nobody feeds yet."""
        count = 0
        for node, stop in self._behind(fed_from):
            first = node.start if node.start > fed_from else fed_from
            last = node.fed_from if node.fed_from < stop else stop
            if last > first:
                count += last - first
        return count

    def feed(self, fed_from: int) -> None:
        """Feed the path from position ``fed_from`` on; it ends where its node does."""
        for node, _ in self._behind(fed_from):
            first = node.start if node.start > fed_from else fed_from
            if first < node.fed_from:
                node.fed_from = first

    def slots(self, start: int = 0) -> list[int]:
        """Slots of the path's tokens from position ``start`` on."""
        return _joined(
            node.slots[max(start - node.start, 0) : stop - node.start]
            for node, stop in self._behind(start)
        )

    def rows(self, start: int) -> list[int]:
        """Batch rows of the path's tokens, which are all fed, from position ``start`` on."""
        runs: list[range] = []
        first = last = 0
        for node, stop in self._behind(start):
            offset = node.first_row - node.fed_from
            if stop + offset != first:  # else the rows of both nodes are one run
                runs.append(range(first, last))
                last = stop + offset
            first = offset + (node.start if node.start > start else start)
        return _joined([*runs, range(first, last)])

    def _behind(self, start: int) -> Iterator[tuple[TrieNode, int]]:
        """As ``nodes``, of the tokens from position ``start`` on."""
        node: TrieNode | None = self.node
        stop = self.depth
        while stop > start and node is not None:
            yield node, stop
            stop, node = node.start, node.parent


ROOT_POSITION = TriePosition(TrieNode((), 0, None), 0)
"""The place of a path that shares nothing."""


class TokenTrie:
    """Paths by salt and tokens. Nodes are visited depth first, children in order of insertion."""

    def __init__(self) -> None:
        self.roots: dict[str, _Root] = {}

    def find(
        self, salt: str, tokens: Sequence[int], stop: int, known: TriePosition | None = None
    ) -> TriePosition:
        """The place of the first ``stop`` tokens of a path: as much of them as is here.

        Args:
            known: a place that is known to lie on this path; what is above it is not compared.
        """
        root = TriePosition(self.roots.get(salt) or _Root(salt), 0)
        node, depth = known if known is not None and known.depth else root
        while depth < stop:
            end = node.start + len(node.tokens)
            if depth < end:
                depth += common_prefix(node.tokens, tokens, depth - node.start, depth, stop)
                if depth < end:
                    break
                continue
            child = node.children.get(tokens[depth])
            if child is None:
                break
            node, depth = child, depth + 1
        return TriePosition(node, depth)

    def extend(
        self, place: TriePosition, salt: str, tokens: tuple[int, ...], slots: list[int]
    ) -> TriePosition:
        """Add the ``tokens`` that a path has behind its place; the end of the node they become."""
        if not tokens:
            return self.cut(place)
        parent = self.cut(place).node if place.depth else self.roots.setdefault(salt, _Root(salt))
        leaf = parent.children[tokens[0]] = TrieNode(tokens, place.depth, parent)
        leaf.slots = slots
        return TriePosition(leaf, leaf.stop)

    @staticmethod
    def cut(place: TriePosition) -> TriePosition:
        """The same place as the end of a node, which is split where it goes on behind it."""
        node, depth = place
        return place if depth == node.stop else TriePosition(node.split(depth), depth)

    def remove(self, leaf: TrieNode) -> None:
        """Take a childless node out, and its root with it when that was all it held."""
        parent = leaf.parent
        if parent is None:
            return
        del parent.children[leaf.tokens[0]]
        if isinstance(parent, _Root) and not parent.children:
            del self.roots[parent.salt]

    def put_back(self, leaf: TrieNode) -> None:
        """Undo ``remove``, with no path put in its place since."""
        parent = leaf.parent
        if parent is None:
            return
        parent.children[leaf.tokens[0]] = leaf
        if isinstance(parent, _Root):
            self.roots[parent.salt] = parent

    @staticmethod
    def join(node: TrieNode) -> TrieNode:
        """Undo a split: merge a node into its parent where it is the only child.

        Returns the node that holds its tokens now.
        """
        parent = node.parent
        if parent is None or parent.parent is None or len(parent.children) > 1:
            return node
        parent.tokens += node.tokens
        parent.slots += node.slots
        parent.children = node.children
        for child in parent.children.values():
            child.parent = parent
        return parent

    def nodes(self) -> Iterator[TrieNode]:
        """Every node but the roots, parents before children."""
        pending: list[TrieNode] = list(reversed(self.roots.values()))
        while pending:
            node = pending.pop()
            if node.tokens:
                yield node
            pending.extend(reversed(node.children.values()))


def _joined(runs: Iterable[Sequence[int]]) -> list[int]:
    """Runs that come last first, in one list."""
    return list(chain.from_iterable(reversed(list(runs))))


ROWS_PER_TOKEN = 32
"""Asked rows that count as much as one token fed. Candidates that begin one another share their
tokens, but a row is planned and answered for each of them, which takes about a microsecond."""


QUERIES_PER_TOKEN = 16
"""Queries that count as much as one token fed: each takes the model thread some 50 microseconds to
plan and to answer, whatever it shares."""


def rows_cost(queries: Sequence[LogprobQuery]) -> int:
    """What queries and their asked rows cost, in tokens, beside the tokens themselves."""
    rows = sum(query.last_row + 1 - query.score_from for query in queries)
    return rows // ROWS_PER_TOKEN + len(queries) // QUERIES_PER_TOKEN


def fed_tokens(queries: Sequence[LogprobQuery]) -> int:
    """Distinct tokens that the model must be fed to answer ``queries`` from nothing."""
    trie, count = TokenTrie(), 0
    for query in queries:
        salt, tokens, stop = query.cache_salt, query.tokens, query.last_row
        place = trie.find(salt, tokens, stop)
        count += stop - place.depth
        trie.extend(place, salt, tokens[place.depth : stop], [])
    return count
