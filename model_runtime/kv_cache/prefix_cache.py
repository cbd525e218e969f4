"""Which cached tokens belong to which path, and which of them make room for others.

``KVStorage`` is the tensors, a row of slots a layer. ``PrefixCache`` is the index: a token
trie whose nodes own slots. A path forks without a copy, since its key blocks name slots::

    [x0 .. x255] slots 1..256 ──┬── [a0 a1] slots 257 258
                                └── [b0]    slot  259

Slot 0 belongs to nobody: padding reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from torch import Tensor

from model_runtime.batching.batch import Batch, CachedPath
from model_runtime.batching.trie import TokenTrie, TrieNode, TriePosition
from model_runtime.kv_cache.logprob_rows import LogprobRowCache
from model_runtime.types import LogprobQuery, LogprobResult, QueryResult


def not_finite(key: Tensor, value: Tensor) -> Tensor:
    """[N] which tokens have keys or values, [kv_heads, N, head_dim] each, that are not finite.

    Masks are added to scores and weights of 0 multiply values, which hides no NaN: rows that do
    not see such a token would be lost with those that do.
    """
    return (key.sum((0, 2)) + value.sum((0, 2))).isfinite().logical_not()


class PrefixCache:
    """The index of computed paths: longest prefix, least recently used leaf first out.

    A batch is bracketed: ``begin``, any number of ``match`` and ``allocate``, then ``commit``
    where it has run, ``rollback`` where its run failed, or the next ``begin`` where it never ran.
    What was matched within the bracket is not evicted within it; what was allocated is free again
    after it, but for the paths that ``commit`` keeps. Of a batch that never ran, what was evicted
    for it is back.

    Attributes:
        capacity: tokens that can be held.
        evicted: tokens that have made room for others.
    """

    def __init__(self, slots: int, row_bytes: int = 1 << 20) -> None:
        """An empty cache.

        Args:
            slots: with slot 0; ``slots - 1`` tokens can be held.
            row_bytes: that what is known of their rows may take.
        """
        self.evicted = 0
        self.capacity = slots - 1
        self._free = list(range(slots - 1, 0, -1))
        self._batch_slots: set[int] = set()
        self._evicted: list[_Evicted] = []
        self._trie = TokenTrie()
        self._clock = 0
        self._touched = 0
        self._held = 0
        self._evictable = _EvictionHeap()
        self._matched: TriePosition | None = None
        self._rows = LogprobRowCache(row_bytes)

    @property
    def used(self) -> int:
        """Slots that hold a computed token or one of the batch at hand."""
        return self.capacity - len(self._free)

    @property
    def pinned(self) -> int:
        """Slots that the batch at hand reads or writes; after it, those it has read."""
        return self._touched + len(self._batch_slots)

    @property
    def row_bytes(self) -> int:
        """Memory that what is known of rows takes."""
        return self._rows.bytes

    @property
    def room(self) -> int:
        """Slots that ``allocate`` can give now: free ones, and those it may evict."""
        return len(self._free) + self._held - self._touched

    def begin(self) -> None:
        """Start a batch. One that was started before and has not run ends here."""
        self._restore()
        self._clock += 1
        self._touched = 0

    def match(self, salt: str, tokens: Sequence[int], stop: int, shared: int = 0) -> TriePosition:
        """The longest computed prefix of a path's first ``stop`` tokens.

        It stays until the batch has run. ``shared`` of the tokens are known to be those of the
        path that was matched before, so they are not compared again.
        """
        known = None if self._matched is None else self._matched.truncated(shared)
        place = self._trie.cut(self._trie.find(salt, tokens, stop, known))
        self._matched = place
        self._touched += self._touch(place)
        return place

    def _touch(self, place: TriePosition) -> int:
        """Set the path's age to now; the number of tokens that were older."""
        older = 0
        for node, _ in place.nodes():
            if node.last_used == self._clock:
                break  # so is everything above it
            node.last_used = self._clock
            older += len(node.tokens)
        return older

    def allocate(self, count: int) -> list[int]:
        """Slots for new tokens, evicting what was not used for longest."""
        if count > len(self._free):
            self._evict(count - len(self._free))
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        self._batch_slots.update(taken)
        return taken[::-1]

    def lookup_rows(self, slots: Sequence[int], query: LogprobQuery, first: int) -> LogprobResult:
        """The known rows of a query from ``first`` on; ``slots`` are of the tokens before them."""
        return self._rows.lookup(slots, query, first)

    def commit(
        self,
        batch: Batch,
        answers: Sequence[QueryResult] = (),
        bad_slots: frozenset[int] = frozenset(),
    ) -> None:
        """The batch has run: keep its kept paths and free the rest of its slots.

        A path is kept as far as none of its tokens is in ``bad_slots``. Of the answers, one for
        each query slice, rows that follow kept tokens are kept with them.
        """
        self._write_over()
        for path in batch.kept:
            self._keep(path.before(bad_slots) if bad_slots else path)
        for query_slice, answer in zip(batch.query_slices, answers, strict=False):
            if query_slice.kept_slots and isinstance(answer, LogprobResult):
                new = answer.without_prefix(query_slice.cached_result)
                self._rows.insert(
                    query_slice.kept_slots, query_slice.query, query_slice.rows.start, new
                )
        self._give_back()

    def rollback(self) -> None:
        """The run of the batch failed: free what was allocated, which it may have written to."""
        self._write_over()
        self._give_back()

    def _restore(self) -> None:
        """The batch never ran: free what was allocated, but what was evicted for it is back."""
        self._give_back()
        back: set[int] = set()
        for leaf, tokens, slots in reversed(self._evicted):
            gone = not leaf.tokens
            leaf.tokens += tokens
            leaf.slots = leaf.slots + slots
            if gone:
                self._trie.put_back(leaf)
            self._evictable.add(leaf)
            back.update(slots)
        self._evicted.clear()
        if back:
            self._free = [slot for slot in self._free if slot not in back]
            self._held += len(back)

    def _write_over(self) -> None:
        """What the batch at hand has allocated holds nothing of what was there before."""
        self.evicted += sum(len(slots) for _, _, slots in self._evicted)
        self._evicted.clear()
        self._rows.invalidate(self._batch_slots)

    def _give_back(self) -> None:
        """Free what is allocated still, and end the bracket."""
        self._free += sorted(self._batch_slots, reverse=True)
        self._batch_slots.clear()
        self._matched = None

    def _keep(self, path: CachedPath) -> None:
        salt, tokens = path.salt, path.tokens
        place = self._trie.find(salt, tokens, len(tokens))
        new = path.slots[place.depth :]
        end = self._trie.extend(place, salt, tokens[place.depth :], list(new))
        self._touch(end)
        if new:
            self._evictable.add(self._trie.join(end.node))
        self._held += len(new)
        self._batch_slots.difference_update(new)

    def _evict(self, wanted: int) -> None:
        """Free ``wanted`` slots: the ends of leaves, oldest leaf first."""
        while wanted > 0:
            leaf = self._evictable.pop(self._clock)
            dropped = min(wanted, len(leaf.tokens))
            self._drop(leaf, dropped)
            self._evictable.add(leaf if leaf.tokens else leaf.parent)
            wanted -= dropped

    def _drop(self, leaf: TrieNode, count: int) -> None:
        """Free the last ``count`` tokens of a leaf. Whose they are loses no more than that."""
        if count == len(leaf.tokens):
            self._trie.remove(leaf)
        kept = len(leaf.tokens) - count
        self._evicted.append(_Evicted(leaf, leaf.tokens[kept:], leaf.slots[kept:]))
        self._free += leaf.slots[kept:][::-1]
        leaf.tokens, leaf.slots = leaf.tokens[:kept], leaf.slots[:kept]
        self._held -= count

    def check(self) -> None:
        """Each slot is free, allocated or held by one node, once; no node is newer than its parent.

        Raises:
            RuntimeError: it is not so. For tests, at any moment.
        """
        nodes = list(self._trie.nodes())
        held = [slot for node in nodes for slot in node.slots]
        if sorted([*held, *self._free, *self._batch_slots]) != list(range(1, self.capacity + 1)):
            raise RuntimeError("slots are lost or held twice; this is a bug")
        if self._held != len(held) or any(len(n.slots) != len(n.tokens) for n in nodes):
            raise RuntimeError("the count of held slots is off; this is a bug")
        if any(not n.children and n not in self._evictable for n in nodes):
            raise RuntimeError("a leaf could never be evicted; this is a bug")
        if any(n.parent and n.parent.tokens and n.parent.last_used < n.last_used for n in nodes):
            raise RuntimeError("a node was used without its parent; this is a bug")


class _Evicted(NamedTuple):
    """What a leaf has lost at its end."""

    leaf: TrieNode
    tokens: tuple[int, ...]
    slots: list[int]


class _EvictionHeap:
    """The trie's leaves, least recently used first. A full cache evicts in each batch, so they are
    known at all times and never looked for.

    An entry says how old a node was when it came in. Nodes are touched, split and extended
    without a word here, so what an entry says is compared with the node when its turn comes.
    """

    def __init__(self) -> None:
        self._ties = count()
        self._heap: list[tuple[int, int, TrieNode]] = []
        self._known: set[TrieNode] = set()

    def __contains__(self, node: TrieNode) -> bool:
        return node in self._known

    def add(self, node: TrieNode | None) -> None:
        """A node that may have become a leaf: a new one, or the parent of one that is gone."""
        if node is None or not node.tokens or node.children or node in self._known:
            return
        self._known.add(node)
        heappush(self._heap, (node.last_used, next(self._ties), node))

    def pop(self, clock: int) -> TrieNode:
        """The oldest of those that were last used before ``clock``."""
        while self._heap and self._heap[0][0] < clock:
            used, _, node = heappop(self._heap)
            self._known.discard(node)
            if node.last_used == used and not node.children:
                return node
            self.add(node)
        raise RuntimeError("allocate() was asked for more than room; this is a bug")
