"""plan(): from queries to one forward. Pure decisions, no torch, no clock.

Each piece of work is laid into the trie of the batch and cut to what the budget leaves::

    tokens   0 ........ cached ........ next_row - 1 ........ stop ......... last_row
             in the KV cache            │ fed now                 │ a later batch
                                        └─ the asked rows ────────┘

A token whose row is asked is fed even where its key and value are cached, for these alone
make no distribution; but where the answer is cached too, it is taken from ``logprob_rows``.
What another query of the batch feeds is not fed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from model_runtime.batching.batch import Batch, CachedPath, QueryProgress, QuerySlice
from model_runtime.batching.block_sizes import BLOCK_SIZE
from model_runtime.batching.head_rows import HeadRows
from model_runtime.batching.layout import Layout
from model_runtime.batching.trie import ROWS_PER_TOKEN, TokenTrie, TriePosition
from model_runtime.types import EMPTY_RESULT, LogprobQuery, LogprobResult

MOST_WORK = 4_096
"""Works in one batch: each takes the model thread some 20 microseconds beside the forward."""


class SlotAllocator(Protocol):
    """What the planner needs of the prefix cache."""

    def begin(self) -> None:
        """Start a batch: what is matched from here on stays until the batch has run."""
        ...

    def match(self, salt: str, tokens: Sequence[int], stop: int, shared: int) -> TriePosition:
        """The longest computed prefix of a path's first ``stop`` tokens.

        At least ``shared`` of them are those of the path that was matched before this one.
        """
        ...

    def lookup_rows(self, slots: Sequence[int], query: LogprobQuery, first: int) -> LogprobResult:
        """The known rows of a query from ``first`` on; ``slots`` are of the tokens before them."""
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
    work: QueryProgress
    end: TriePosition
    computed_tokens: int
    cached_result: LogprobResult

    @property
    def stop(self) -> int:
        return self.end.depth

    @property
    def rows(self) -> range:
        first = self.work.next_row + len(self.cached_result.logprobs)
        return range(first, max(self.stop + 1, first))

    @property
    def kept(self) -> int:
        """Tokens worth keeping: all while the query goes on, its context once it is answered."""
        query = self.work.query
        worth = query.score_from if query.keep is None else query.keep
        return min(self.stop, worth) if self.stop == query.last_row else self.stop

    @property
    def kept_slots(self) -> tuple[int, ...]:
        """Of the tokens before the first scored rows, as far as they are worth keeping."""
        query, first = self.work.query, self.rows.start
        last = min(query.keep or 0, self.stop, len(query.tokens) - 1)
        return tuple(self.end.truncated(last).slots(first - 1)) if first <= last else ()


def plan(
    work: Sequence[QueryProgress], cache: SlotAllocator, budget: int, block_size: int = BLOCK_SIZE
) -> Batch:
    """Lay work into one batch, in the order given, until ``budget`` fed tokens are spent.

    Work that does not fit whole is cut. Behind a cut only work that shares what is fed already
    comes along, as far as it shares it: its rows there cost nothing now, and the whole prefix
    again later. The first piece always advances, provided that the cache can hold its path.

    ``ROWS_PER_TOKEN`` rows are answered for each token of the budget at most: candidates that
    begin one another share their tokens, but each asks rows of its own. It is of ``MOST_WORK``
    works at most.
    """
    planning = _Planning(cache, budget)
    full = False
    for index, item in enumerate(work):
        if not planning.rows or len(planning.admitted) == MOST_WORK:
            break
        place = planning.find(item)
        # Some row that it asks next is of a token in the batch already.
        shares = place.depth >= item.next_row
        if not full or shares:
            full = not planning.admit(index, item, place) or full
    return planning.batch(block_size)


class _Planning:
    """The state of one call of ``plan``."""

    def __init__(self, cache: SlotAllocator, budget: int) -> None:
        cache.begin()
        self.cache = cache
        self.budget = budget
        self.rows = budget * ROWS_PER_TOKEN
        self.trie = TokenTrie()
        self.admitted: list[_Admitted] = []
        self._last: TriePosition | None = None

    def find(self, work: QueryProgress) -> TriePosition:
        """How much of the work's path is in the batch."""
        query = work.query
        return self.trie.find(query.cache_salt, query.tokens, query.last_row)

    def admit(self, index: int, work: QueryProgress, place: TriePosition) -> bool:
        """Take as much of the work as fits; False when the batch is full after it."""
        query = work.query
        cached = self._match(query, place)
        cached_result = self._lookup_rows(work, cached)
        first = work.next_row + len(cached_result.logprobs)
        fed_from = min(cached.depth, first - 1)
        last = min(query.last_row, first + self.rows - 1)
        stop, cost = self._cut(last, place, cached.depth, fed_from)
        if stop <= fed_from:
            return False
        end = self._insert(query, place.truncated(stop), cached.truncated(stop), stop)
        end.feed(fed_from)
        self._last = end
        self.budget -= cost
        self.rows -= max(0, stop + 1 - first)
        self.admitted.append(_Admitted(index, work, end, cost, cached_result))
        return stop == query.last_row

    def _match(self, query: LogprobQuery, place: TriePosition) -> TriePosition:
        """Match a path in the cache, where it need not be compared again as far as it is here."""
        shared = 0 if self._last is None else place.shared(self._last)
        self._last = None
        return self.cache.match(query.cache_salt, query.tokens, query.last_row, shared)

    def _lookup_rows(self, work: QueryProgress, cached: TriePosition) -> LogprobResult:
        """The answers to the next rows that are known; never to the last one."""
        query, first = work.query, work.next_row
        last = min(cached.depth, query.last_row - 1)
        if query.keep is None or first > last:
            return EMPTY_RESULT
        return self.cache.lookup_rows(cached.truncated(last).slots(first - 1), query, first)

    def _cut(self, length: int, place: TriePosition, cached: int, fed_from: int) -> tuple[int, int]:
        """How far the path can be fed, and how many tokens that feeds anew.

        What is fed anew counts against the budget; what has no slot yet, against the room.
        """
        stop = min(length, max(place.depth, cached) + self.cache.room)
        cost = _unfed(place, stop, fed_from)
        while cost > self.budget and stop > fed_from:
            stop -= cost - self.budget
            cost = _unfed(place, stop, fed_from)
        return stop, cost

    def _insert(
        self, query: LogprobQuery, place: TriePosition, cached: TriePosition, stop: int
    ) -> TriePosition:
        """Put the path up to ``stop`` into the trie, with slots for what is new there."""
        depth = place.depth
        slots = cached.slots(depth)
        slots += self.cache.allocate(stop - depth - len(slots))
        return self.trie.extend(place, query.cache_salt, query.tokens[depth:stop], slots)

    def batch(self, block_size: int) -> Batch:
        layout = Layout(self.trie, block_size)
        heads = HeadRows()
        query_slices = tuple(self._query_slice(item, heads) for item in self.admitted)
        return Batch(
            token_ids=layout.token_ids,
            positions=layout.positions,
            slots=layout.slots,
            suffix_spans=tuple(layout.suffix_spans),
            prefix_spans=tuple(layout.prefix_spans),
            head_rows=list(heads.index),
            top_k=heads.top_k,
            summaries=heads.summaries,
            gather_head=heads.gather_head,
            gather_ids=heads.gather_ids,
            query_slices=query_slices,
            kept=tuple(self._kept()),
        )

    def _query_slice(self, item: _Admitted, heads: HeadRows) -> QuerySlice:
        query = item.work.query
        rows = item.end.rows(item.rows.start - 1)
        head_index, gathers = heads.add(query, item.rows, rows)
        return QuerySlice(
            work_index=item.index,
            query=query,
            rows=item.rows,
            computed_tokens=item.computed_tokens,
            head_index=head_index,
            gathers=gathers,
            end_row=item.end.rows(item.stop - 1)[0],
            cached_result=item.cached_result,
            kept_slots=item.kept_slots,
        )

    def _kept(self) -> Iterator[CachedPath]:
        """What is worth keeping, each path once: candidates have their context in common."""
        seen: set[TriePosition] = set()
        for item in self.admitted:
            place, query = item.end.truncated(item.kept), item.work.query
            if place.depth and place not in seen:
                seen.add(place)
                yield CachedPath(
                    query.cache_salt, query.tokens[: place.depth], tuple(place.slots())
                )


def _unfed(place: TriePosition, stop: int, fed_from: int) -> int:
    """How many tokens of a path up to ``stop``, from ``fed_from`` on, nobody feeds yet."""
    here = place.truncated(stop)
    return here.count_unfed(fed_from) + max(0, stop - max(here.depth, fed_from))
