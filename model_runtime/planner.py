"""plan(): from queries to one forward. Pure decisions, no torch, no clock.

Each piece of work is laid into the trie of the batch and cut to what the budget leaves::

    tokens   0 ........ cached ........ next_row - 1 ........ stop ......... last_row
             in the KV cache            │ fed now                 │ a later batch
                                        └─ the asked rows ────────┘

A token whose row is asked is fed even where its key and value are cached, for these alone
make no distribution. What another query of the batch feeds is not fed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from model_runtime.batch import Batch, Extent, KeptPath, Work
from model_runtime.head_rows import HeadRows
from model_runtime.layout import Layout
from model_runtime.trie import TokenTrie

BLOCK_SIZE = 128
"""Keys in a block. It sets the order of additions, hence the bits: part of the fingerprint."""


class SlotPool(Protocol):
    """What the planner needs of the prefix cache."""

    def begin(self) -> None:
        """Start a batch: what is matched from here on stays until the batch has run."""
        ...

    def match(self, salt: str, tokens: Sequence[int]) -> list[int]:
        """Slots of the longest computed prefix of a path."""
        ...

    @property
    def room(self) -> int:
        """Slots that ``allocate`` can give now."""
        ...

    def allocate(self, count: int) -> list[int]:
        """Slots for new tokens; at most ``room``."""
        ...


@dataclass(frozen=True, slots=True)
class _Admitted:
    """Work that is in the batch, up to ``stop`` tokens of its path."""

    index: int
    work: Work
    stop: int
    computed_tokens: int

    @property
    def rows(self) -> range:
        return range(self.work.next_row, max(self.stop + 1, self.work.next_row))

    @property
    def kept(self) -> int:
        """Tokens worth keeping: all while the query goes on, its context once it is answered."""
        query = self.work.query
        return min(self.stop, query.score_from) if self.stop == query.last_row else self.stop


def plan(work: Sequence[Work], cache: SlotPool, budget: int, block_size: int = BLOCK_SIZE) -> Batch:
    """Lay work into one batch, in the order given, until ``budget`` fed tokens are spent.

    Work that does not fit whole is cut. Behind a cut only work that shares what is fed already
    comes along, as far as it shares it: its rows there cost nothing now, and the whole prefix
    again later. The first piece always advances, provided that the cache can hold its path.
    """
    planning = _Planning(cache, budget)
    full = False
    for index, item in enumerate(work):
        if not full or planning.shares(item):
            full = not planning.admit(index, item) or full
    return planning.batch(block_size)


class _Planning:
    """The state of one call of ``plan``."""

    def __init__(self, cache: SlotPool, budget: int) -> None:
        cache.begin()
        self.cache = cache
        self.budget = budget
        self.trie = TokenTrie()
        self.admitted: list[_Admitted] = []

    def shares(self, work: Work) -> bool:
        """Whether some row that the work asks next is of a token in the batch already."""
        return self.trie.depth(work.query.cache_salt, work.query.tokens) >= work.next_row

    def admit(self, index: int, work: Work) -> bool:
        """Take as much of the work as fits; False when the batch is full after it."""
        salt, path = work.query.cache_salt, work.query.tokens[: work.query.last_row]
        cached = self.cache.match(salt, path)
        fed_from = min(len(cached), work.next_row - 1)
        stop, cost = self._cut(salt, path, len(cached), fed_from)
        if stop <= fed_from:
            return False
        self._insert(salt, path[:stop], cached, fed_from)
        self.budget -= cost
        self.admitted.append(_Admitted(index, work, stop, cost))
        return stop == len(path)

    def _cut(self, salt: str, path: tuple[int, ...], cached: int, fed_from: int) -> tuple[int, int]:
        """How far the path can be fed, and how many tokens that feeds anew.

        What is fed anew counts against the budget; what has no slot yet, against the room.
        """
        stop = min(len(path), max(self.trie.depth(salt, path), cached) + self.cache.room)
        cost = self.trie.unfed(salt, path[:stop], fed_from)
        while cost > self.budget and stop > fed_from:
            stop -= cost - self.budget
            cost = self.trie.unfed(salt, path[:stop], fed_from)
        return stop, cost

    def _insert(self, salt: str, path: tuple[int, ...], cached: list[int], fed_from: int) -> None:
        depth = self.trie.depth(salt, path)
        new = self.cache.allocate(len(path) - max(depth, min(len(cached), len(path))))
        self.trie.insert(salt, path, cached[depth : len(path)] + new, fed_from)

    def batch(self, block_size: int) -> Batch:
        layout = Layout(self.trie, block_size)
        heads = HeadRows()
        extents = tuple(self._extent(item, heads) for item in self.admitted)
        return Batch(
            token_ids=layout.token_ids,
            positions=layout.positions,
            slots=layout.slots,
            key_blocks=tuple(layout.key_blocks),
            head_rows=list(heads.index),
            top_k=heads.top_k,
            floors=heads.floors,
            summaries=heads.summaries,
            gather_head=heads.gather_head,
            gather_ids=heads.gather_ids,
            extents=extents,
            kept=tuple(self._keep(item) for item in self.admitted),
        )

    def _extent(self, item: _Admitted, heads: HeadRows) -> Extent:
        query = item.work.query
        rows = self.trie.rows(query.cache_salt, query.tokens[: item.stop], item.rows.start - 1)
        head_index, gathers = heads.ask(query, item.rows, rows)
        return Extent(
            work_index=item.index,
            query=query,
            rows=item.rows,
            computed_tokens=item.computed_tokens,
            head_index=head_index,
            gathers=gathers,
        )

    def _keep(self, item: _Admitted) -> KeptPath:
        query = item.work.query
        tokens = query.tokens[: item.kept]
        return KeptPath(query.cache_salt, tokens, self.trie.slots(query.cache_salt, tokens))
