"""The index of computed paths: what stays, what is evicted, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.batching.batch import Batch, CachedPath
from model_runtime.batching.trie import TokenTrie, TrieNode
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.types import LogprobQuery, LogprobResult

Path = tuple[str, tuple[int, ...]]


def batch_keeping(kept: list[CachedPath]) -> Batch:
    """A batch that has run, of which only the kept paths matter."""
    return Batch(**{part.name: () for part in fields(Batch)} | {"kept": tuple(kept)})


def slots_of(cache: PrefixCache, salt: str, tokens: tuple[int, ...]) -> list[int]:
    """Match a path as a planner does; where its computed prefix lies."""
    return cache.match(salt, tokens, len(tokens)).slots()


def lend(cache: PrefixCache, salt: str, tokens: tuple[int, ...]) -> CachedPath:
    """Match a path and allocate what is missing of it, as a planner does."""
    found = slots_of(cache, salt, tokens)
    return CachedPath(salt, tokens, (*found, *cache.allocate(len(tokens) - len(found))))


def keep(cache: PrefixCache, *paths: Path) -> None:
    """Compute these paths and keep them, a batch each."""
    for path in paths:
        cache.begin()
        cache.commit(batch_keeping([lend(cache, *path)]))


def cached(cache: PrefixCache, salt: str, tokens: tuple[int, ...]) -> int:
    """How much of a path is there; a batch of its own, so that nothing older is protected."""
    cache.begin()
    return len(slots_of(cache, salt, tokens))


def contents(cache: PrefixCache) -> dict[Path, int]:
    """Where the last token of every path lies that is there."""
    found: dict[Path, int] = {}
    pending: list[tuple[Path, TrieNode]] = [
        ((salt, ()), root) for salt, root in cache._trie.roots.items()
    ]
    while pending:
        (salt, path), node = pending.pop()
        for end, slot in enumerate(node.slots, 1):
            found[salt, path + node.tokens[:end]] = slot
        pending += (((salt, path + node.tokens), child) for child in node.children.values())
    return found


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[TokenTrie]:
    """One entry for each time that a trie is walked as a whole."""
    seen: list[TokenTrie] = []
    nodes = TokenTrie.nodes

    def count(self: TokenTrie) -> Iterator[TrieNode]:
        seen.append(self)
        return nodes(self)

    monkeypatch.setattr(TokenTrie, "nodes", count)
    return seen


class Bracket:
    """A cache, and what was matched, lent and may be kept in the batch at hand."""

    def __init__(self, slots: int) -> None:
        self.cache = PrefixCache(slots)
        self.lent: set[int] = set()
        self.paths: list[CachedPath] = []
        self.matched: dict[Path, list[int]] = {}
        self.kept: dict[Path, int] = {}

    def begin(self) -> None:
        """Give up the batch at hand, which never ran: it has changed nothing."""
        self.cache.begin()
        assert contents(self.cache) == self.kept
        self._forget()

    def match(self, path: Path) -> None:
        self.matched[path] = slots_of(self.cache, *path)

    def compute(self, path: Path) -> None:
        """Match a path and allocate its rest, where there is room for it."""
        self.match(path)
        missing = len(path[1]) - len(self.matched[path])
        if missing <= self.cache.room:
            slots = (*self.matched[path], *self._allocate(missing))
            self.paths.append(CachedPath(*path, slots))

    def fill(self) -> None:
        self._allocate(self.cache.room)

    def evict(self) -> None:
        """Allocate one slot more than is free, where there is one."""
        free = self.cache.capacity - self.cache.used
        self._allocate(min(free + 1, self.cache.room))

    def commit(self) -> None:
        self.cache.commit(batch_keeping(self.paths[::2]))
        for path in self.paths[::2]:
            assert len(slots_of(self.cache, path.salt, path.tokens)) == len(path.tokens)
        self.kept = contents(self.cache)
        self.begin()

    def abandon(self) -> None:
        """The run failed: what it may have written over is gone."""
        self.cache.rollback()
        assert self.lent.isdisjoint(contents(self.cache).values())
        self.kept = contents(self.cache)
        self.begin()

    def check(self) -> None:
        """The books balance, and nothing that was matched has been evicted or lent."""
        self.cache.check()
        for path, slots in self.matched.items():
            assert slots_of(self.cache, *path)[: len(slots)] == slots
            assert self.lent.isdisjoint(slots)

    def _allocate(self, count: int) -> list[int]:
        before = self.cache.room
        slots = self.cache.allocate(count)
        assert len(set(slots)) == count
        assert self.lent.isdisjoint(slots)
        assert self.cache.room == before - count
        self.lent.update(slots)
        return slots

    def _forget(self) -> None:
        self.lent.clear()
        self.paths.clear()
        self.matched.clear()


PATHS = st.tuples(
    st.sampled_from("abcd"), st.lists(st.integers(0, 1), min_size=1, max_size=4).map(tuple)
)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["compute", "compute", "match"]), PATHS),
    st.tuples(
        st.sampled_from(["begin", "evict", "fill", "commit", "commit", "abandon"]), st.none()
    ),
)


@settings(max_examples=300, deadline=None)
@given(slots=st.integers(2, 20), steps=st.lists(STEPS, max_size=40))
def test_the_books_balance_whatever_happens(
    slots: int, steps: list[tuple[str, Path | None]]
) -> None:
    """No slot is lost, no matched path is evicted, all that ``room`` promises is given, and a batch
    that never ran has changed nothing."""
    bracket = Bracket(slots)
    bracket.begin()
    for name, path in steps:
        getattr(bracket, name)(*(() if path is None else (path,)))
        bracket.check()
    bracket.fill()
    bracket.check()
    bracket.begin()
    bracket.fill()
    bracket.check()
    assert len(bracket.lent) == slots - 1
    assert bracket.cache._trie.roots == {}


def test_rows_outlive_a_plan_that_is_given_up() -> None:
    """What is known of an evicted token is forgotten once a batch runs in its place, not before."""
    cache = PrefixCache(5)
    query = LogprobQuery((1, 2, 3, 4), 1, keep=4)
    keep(cache, ("", query.tokens))
    slots = slots_of(cache, "", query.tokens)
    cache._rows.insert(slots[:3], query, 1, LogprobResult((-1.0, -2.0, -3.0), (1, 2, 3)))
    cache.begin()
    cache.allocate(4)
    cache.begin()
    assert cache.lookup_rows(slots[:3], query, 1).ranks == (1, 2, 3)
    cache.allocate(4)
    cache.rollback()
    assert cache.lookup_rows(slots[:3], query, 1) == LogprobResult()


def test_evicting_never_walks_the_trie(walks: list[TokenTrie]) -> None:
    """Many leaves go in many allocations, their parents too; the index is not looked through."""
    cache = PrefixCache(401)
    keep(cache, *((f"tenant {i}", (1, 2, branch)) for i in range(100) for branch in (3, 4)))
    cache.begin()
    walks.clear()
    for _ in range(400):
        cache.allocate(1)
    assert cache.room == 0
    assert walks == []
    cache.check()


def test_what_is_known_of_leaves_does_not_grow_with_the_batches() -> None:
    """A path that grows token by token, as a decode does, is one leaf all the time."""
    cache = PrefixCache(100)
    for length in range(1, 90):
        keep(cache, ("", tuple(range(length))))
    cache.check()
    assert len(cache._evictable._heap) == 1


def test_what_was_not_used_for_longest_goes_first() -> None:
    """Age counts from the last match, whatever the order of arrival."""
    cache = PrefixCache(13)
    for salt in "abc":
        keep(cache, (salt, (1, 2, 3, 4)))
    assert cached(cache, "a", (1, 2, 3, 4)) == 4
    cache.begin()
    cache.allocate(4)
    cache.rollback()
    assert [cached(cache, salt, (1, 2, 3, 4)) for salt in "abc"] == [4, 0, 4]


@pytest.mark.parametrize(
    ("wanted", "left"), [(1, (3, 4)), (2, (2, 4)), (3, (2, 3)), (4, (2, 2)), (5, (1, 1))]
)
def test_a_leaf_loses_no_more_than_is_needed(wanted: int, left: tuple[int, int]) -> None:
    """The end of the oldest goes first, then that of the next: what is left are prefixes."""
    cache = PrefixCache(7)
    old, young = (1, 2, 3, 4), (1, 2, 5, 6)
    keep(cache, ("", old), ("", young))
    cache.begin()
    cache.allocate(wanted)
    cache.check()
    cache.rollback()
    assert cache.used == 6 - wanted
    assert (cached(cache, "", old), cached(cache, "", young)) == left


def test_an_old_parent_goes_before_a_younger_leaf() -> None:
    """A node whose children are gone is a leaf like any other, as old as its own last match."""
    cache = PrefixCache(7)
    keep(cache, ("old", (1, 2, 3)), ("old", (1, 2, 4)), ("young", (5, 6)))
    cache.begin()
    cache.allocate(4)
    cache.rollback()
    assert (cached(cache, "old", (1, 2)), cached(cache, "young", (5, 6))) == (0, 2)


@pytest.mark.parametrize(("path", "spared"), [((1, 2, 3, 4), 4), ((1, 2, 9), 2)])
def test_what_is_matched_between_two_evictions_stays(path: tuple[int, ...], spared: int) -> None:
    """A leaf that was up for eviction is spared as far as a path is asked for that shares it."""
    cache = PrefixCache(13)
    for salt in "abc":
        keep(cache, (salt, (1, 2, 3, 4)))
    cache.begin()
    cache.allocate(4)
    found = slots_of(cache, "b", path)
    room = 8 - spared
    assert (len(found), cache.room) == (spared, room)
    assert not {slot for _ in range(room) for slot in cache.allocate(1)} & set(found)
    with pytest.raises(RuntimeError, match="more than room"):
        cache.allocate(1)
    cache.rollback()
    assert [cached(cache, salt, (1, 2, 3, 4)) for salt in "abc"] == [0, spared, 0]


def test_what_a_batch_reads_and_writes_is_pinned() -> None:
    """The part of the cache that cannot be evicted, each token once; what is only kept is not."""
    cache = PrefixCache(20)
    keep(cache, ("", (1, 2, 3)), ("", (4, 5)))
    cache.begin()
    assert cache.pinned == 0
    first, second = lend(cache, "", (1, 2, 3, 6)), lend(cache, "", (1, 2, 7, 8))
    assert cache.pinned == 3 + 1 + 2
    cache.commit(batch_keeping([first, second]))
    cache.begin()
    assert (cache.pinned, cache.used) == (0, 8)


def test_what_was_evicted_is_counted_once_its_slots_are_used() -> None:
    """A plan that is given up evicts nothing."""
    cache = PrefixCache(6)
    keep(cache, ("", (1, 2, 3)))
    cache.begin()
    cache.allocate(4)
    cache.begin()
    assert cache.evicted == 0
    keep(cache, ("", (4, 5, 6, 7)))
    assert cache.evicted == 2


def test_the_last_path_of_a_tenant_takes_its_root_along() -> None:
    """Emptied roots do not pile up, and those beside them stay."""
    cache = PrefixCache(4)
    for salt in "abcd":
        keep(cache, (salt, (1,)))
    assert list(cache._trie.roots) == ["b", "c", "d"]
