"""The token trie: every distinct token path of a batch, held once.

Runs of tokens without a branch share a node, so a node is a segment of positions::

    root ── [x0 x1 x2 x3] ──┬── [a0 a1]          candidate 1 = x + a
            start 0, stop 4 └── [b0] ──┬── [b1]   candidates 2 and 3 share b0
                                       └── [c1]

A node's identity is its whole path from the root, and roots are told apart by salt. Two
tokens are the same node only when everything before them is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


class TokenTrie:
    """Paths by salt and tokens. Nodes are visited depth first, children in order of insertion."""

    def __init__(self) -> None:
        self.roots: dict[str, _Root] = {}

    def unfed(self, salt: str, tokens: Sequence[int], fed_from: int) -> int:
        """How many tokens of this path from ``fed_from`` on nobody feeds yet."""
        count, position = 0, 0
        for node, stop in self._walk(salt, tokens):
            count += max(0, min(stop, node.fed_from) - max(node.start, fed_from))
            position = stop
        return count + max(0, len(tokens) - max(position, fed_from))

    def depth(self, salt: str, tokens: Sequence[int]) -> int:
        """How many leading tokens of this path are in the trie."""
        return max((stop for _, stop in self._walk(salt, tokens)), default=0)

    def insert(
        self, salt: str, tokens: tuple[int, ...], leaf_slots: Sequence[int], fed_from: int
    ) -> None:
        """Add a path, fed from position ``fed_from`` on.

        ``leaf_slots`` are those of the tokens that the trie does not hold yet.
        """
        position = 0
        last: TrieNode = self.roots.setdefault(salt, _Root(salt))
        for last in self.cut(salt, tokens):
            last.fed_from = min(last.fed_from, max(fed_from, last.start))
            position = last.stop
        if position < len(tokens):
            leaf = TrieNode(tokens[position:], position, last)
            leaf.slots = list(leaf_slots)
            leaf.fed_from = max(fed_from, position)
            last.children[leaf.tokens[0]] = leaf

    def slots(self, salt: str, tokens: Sequence[int]) -> tuple[int, ...]:
        """Slots of an inserted path."""
        slots: list[int] = []
        for node, stop in self._walk(salt, tokens):
            slots += node.slots[: stop - node.start]
        return tuple(slots)

    def rows(self, salt: str, tokens: Sequence[int], start: int) -> list[int]:
        """Batch rows of the fed tokens of an inserted path, from position ``start`` on."""
        rows: list[int] = []
        for node, stop in self._walk(salt, tokens):
            first = max(start, node.start)
            offset = node.first_row - node.fed_from
            rows += range(first + offset, stop + offset)
        return rows

    def cut(self, salt: str, tokens: Sequence[int]) -> list[TrieNode]:
        """The nodes of the longest common path, the last one split where it parts from it."""
        return [
            node if stop == node.stop else node.split(stop)
            for node, stop in list(self._walk(salt, tokens))
        ]

    def remove(self, leaf: TrieNode) -> None:
        """Take a childless node out, and its root with it when that was all it held."""
        parent = leaf.parent
        if parent is None:
            return
        del parent.children[leaf.tokens[0]]
        if isinstance(parent, _Root) and not parent.children:
            del self.roots[parent.salt]

    @staticmethod
    def join(node: TrieNode) -> None:
        """Undo a split: merge a node into its parent where it is the only child."""
        parent = node.parent
        if parent is None or parent.parent is None or len(parent.children) > 1:
            return
        parent.tokens += node.tokens
        parent.slots += node.slots
        parent.children = node.children
        for child in parent.children.values():
            child.parent = parent

    def nodes(self) -> Iterator[TrieNode]:
        """Every node but the roots, parents before children."""
        pending: list[TrieNode] = list(reversed(self.roots.values()))
        while pending:
            node = pending.pop()
            if node.tokens:
                yield node
            pending.extend(reversed(node.children.values()))

    def _walk(self, salt: str, tokens: Sequence[int]) -> Iterator[tuple[TrieNode, int]]:
        """Nodes along the path with the position up to which each agrees with it."""
        node: TrieNode | None = self.roots.get(salt)
        position = 0
        while node is not None and position < len(tokens):
            node = node.children.get(tokens[position])
            if node is None:
                return
            position = node.start + common_prefix(node.tokens, tokens, node.start)
            yield node, position
            if position < node.stop:
                return


def common_prefix(segment: Sequence[int], tokens: Sequence[int], start: int) -> int:
    """How many tokens of ``segment`` equal ``tokens`` from ``start`` on."""
    length = min(len(segment), len(tokens) - start)
    if segment[:length] == tokens[start : start + length]:
        return length
    return next(i for i in range(length) if segment[i] != tokens[start + i])


def fed_tokens(queries: Sequence[LogprobQuery]) -> int:
    """Distinct tokens that the model must be fed to answer ``queries`` from nothing."""
    trie = TokenTrie()
    for query in queries:
        trie.insert(query.cache_salt, query.tokens[: query.last_row], (), 0)
    return sum(len(node.tokens) for node in trie.nodes())
