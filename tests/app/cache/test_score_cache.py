"""Kept answers: which go first, what they weigh, and what is counted."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cache.score_cache import ScoreCache, entry_bytes
from app.telemetry.cache_stats import ScoreCacheStats
from model_runtime import LogprobResult, RankedLogprob, TokenLogprob

ROOM = 1 << 30


def digest(number: int) -> bytes:
    """A digest as large as real ones."""
    return number.to_bytes(32, "big")


def answer(number: int, tokens: int = 1) -> LogprobResult:
    """An answer of so many scored tokens, none of whose numbers is shared with another."""
    places = range(tokens)
    return LogprobResult(
        logprobs=tuple(-0.5 - number - place for place in places),
        ranks=tuple(1000 + number + place for place in places),
    )


def get(cache: ScoreCache, key: bytes) -> LogprobResult | None:
    """What is kept under one digest."""
    return cache.get_all([key]).get(key)


def test_what_is_kept_is_found() -> None:
    """An answer comes back as the object that was put in; others are not known."""
    cache = ScoreCache(ROOM)
    kept = answer(1)
    cache.put_all({digest(1): kept})
    assert get(cache, digest(1)) is kept
    assert get(cache, digest(2)) is None
    assert cache.stats() == ScoreCacheStats(hits=1, misses=1, bytes=entry_bytes(kept))


def test_the_least_recently_used_answer_goes_first() -> None:
    """Being read keeps an answer longer than being written early costs it."""
    size = entry_bytes(answer(1))
    cache = ScoreCache(3 * size)
    for number in (1, 2, 3):
        cache.put_all({digest(number): answer(number)})
    get(cache, digest(1))
    cache.put_all({digest(4): answer(4)})
    assert [get(cache, digest(number)) is not None for number in (1, 2, 3, 4)] == [
        *(True, False),
        *(True, True),
    ]


def test_an_answer_is_put_in_place_of_an_older_one() -> None:
    """The same query twice takes the room of one."""
    cache = ScoreCache(ROOM)
    cache.put_all({digest(1): answer(1, tokens=50)})
    cache.put_all({digest(1): answer(1)})
    assert len(cache) == 1
    assert cache.stats().bytes == entry_bytes(answer(1))


def test_an_answer_that_cannot_fit_drives_nothing_out() -> None:
    """Larger than the whole budget means not kept, and the others stay."""
    cache = ScoreCache(2 * entry_bytes(answer(1)))
    cache.put_all({digest(1): answer(1)})
    cache.put_all({digest(2): answer(2, tokens=1000)})
    assert get(cache, digest(1)) is not None
    assert get(cache, digest(2)) is None


def test_without_a_budget_nothing_is_kept() -> None:
    """The default keeps no answer and says that it is off."""
    cache = ScoreCache()
    cache.put_all({digest(1): answer(1)})
    assert not cache.enabled
    assert len(cache) == cache.stats().bytes == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 8_000),
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 40)), max_size=60),
)
def test_the_budget_holds_after_every_step(budget: int, steps: list[tuple[bool, int, int]]) -> None:
    """What is reported is the sum of what is there, never above the budget, and nothing stale."""
    cache = ScoreCache(budget)
    written: dict[int, LogprobResult] = {}
    for writes, number, tokens in steps:
        if writes:
            written[number] = answer(number, tokens)
            cache.put_all({digest(number): written[number]})
            continue
        found = get(cache, digest(number))
        assert found is None or found is written[number]
    kept = [found for number in written if (found := get(cache, digest(number))) is not None]
    assert cache.stats().bytes == sum(map(entry_bytes, kept)) <= budget


def listed(number: int) -> LogprobResult:
    """With the most probable tokens of two rows."""
    rows = [tuple(TokenLogprob(300 + i, -0.1 * number - i) for i in range(20)) for _ in range(2)]
    return LogprobResult(logprobs=(-0.5 - number,), ranks=(300 + number,), top=tuple(rows))


def spread(number: int) -> LogprobResult:
    """With many most probable tokens, and of a choice."""
    top = tuple(TokenLogprob(300 + i, -0.1 * number - i) for i in range(400))
    choices = tuple(RankedLogprob(300 + i, -0.2 * number - i, 300 + i) for i in range(100))
    return LogprobResult(top=(top,), entropies=(0.1 * number,), choices=choices)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (answer, 6_000),
        (lambda number: answer(number, tokens=40), 2_000),
        (listed, 700),
        (spread, 100),
    ],
    ids=["short", "long", "listed", "spread"],
)
def test_the_accounting_is_honest(make: Callable[[int], LogprobResult], count: int) -> None:
    """Python allocates no more than is reported, and at least eight tenths of it."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        cache = ScoreCache(ROOM)
        for number in range(count):
            cache.put_all({digest(number): make(number)})
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(cache) == count
    assert 0.8 * cache.stats().bytes <= taken <= cache.stats().bytes
