"""Batches are made to fit what is free, whatever that is at the moment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.batching.batch import Batch, QueryProgress
from model_runtime.batching.planner import plan
from model_runtime.errors import ModelLoadError, OutOfMemory
from model_runtime.kv_cache.logprob_rows import row_budget
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.memory.available import AvailableMemory
from model_runtime.memory.estimate import ModelShape, batch_bytes, largest_batch_bytes
from model_runtime.memory.guard import RETRY_AFTER_S, MemoryGuard
from model_runtime.scheduling.oom_backoff import SMALLEST_BUDGET
from model_runtime.types import LogprobQuery

MIB = 1 << 20
SHAPE = ModelShape(
    layers=8, hidden=1024, intermediate=4096, heads=16, kv_heads=4, head_dim=64, vocab=32_000
)


class FakeMemory(AvailableMemory):
    """Says what a test tells it."""

    def __init__(self, free: int | None, resident: int = 0) -> None:
        self.total = free
        self.left = free
        self.held = resident
        self.readings = 0

    def free(self) -> int | None:
        self.readings += 1
        return self.left

    def resident(self) -> int:
        return self.held


class Bench:
    """A planner over one long prompt, and a clock that only the test advances."""

    def __init__(self, memory: FakeMemory) -> None:
        self.now = 0.0
        self.memory = memory
        self.room = MemoryGuard(SHAPE, memory, clock=lambda: self.now)
        self.cache = PrefixCache(10_000)
        self.work = [QueryProgress(LogprobQuery(tuple(range(9000)), 9000, ()), 9000)]

    def fit(self, budget: int = 4096) -> Batch:
        return self.room.fit(lambda tokens: plan(self.work, self.cache, tokens), budget)


def needed(tokens: int) -> int:
    """What a first batch of so many prompt tokens takes, storage included."""
    bench = Bench(FakeMemory(None))
    return batch_bytes(SHAPE, bench.fit(tokens)) + tokens * SHAPE.kv_bytes + SHAPE.kv_bytes


@given(free=st.integers(needed(SMALLEST_BUDGET), needed(4096)), budget=st.integers(32, 4096))
def test_a_batch_fits_what_is_free(free: int, budget: int) -> None:
    """It is never predicted to take more, and not made much smaller than it must be."""
    batch = Bench(FakeMemory(free)).fit(budget)
    tokens = len(batch.token_ids)
    assert needed(tokens) <= free + SHAPE.kv_bytes
    assert tokens in (budget, SMALLEST_BUDGET) or needed(4 * tokens) > free


def test_what_fits_at_no_size_fails_instead_of_being_killed() -> None:
    """The smallest batch is refused by an error that says how much is missing."""
    with pytest.raises(OutOfMemory, match="GiB") as caught:
        Bench(FakeMemory(MIB)).fit()
    assert caught.value.retry_after_s is None


def test_what_others_leave_no_room_for_is_worth_another_try() -> None:
    """It is told apart from what would not fit if this process were alone."""
    bench = Bench(FakeMemory(needed(4096), resident=MIB))
    bench.memory.left = MIB
    with pytest.raises(OutOfMemory) as caught:
        bench.fit()
    assert caught.value.retry_after_s == RETRY_AFTER_S
    bench.memory.total = MIB + needed(SMALLEST_BUDGET) - 2 * SHAPE.kv_bytes
    with pytest.raises(OutOfMemory) as caught:
        bench.fit()
    assert caught.value.retry_after_s is None


def test_where_nothing_is_known_nothing_is_made_smaller() -> None:
    """Off Linux batches are as large as the settings say."""
    assert len(Bench(FakeMemory(None)).fit().token_ids) == 4096


def test_shortage_passes() -> None:
    """Nothing is remembered of it: once there is memory again, batches are large again."""
    bench = Bench(FakeMemory(needed(100)))
    assert len(bench.fit().token_ids) <= 101
    bench.memory.left = needed(4096)
    bench.now += 1.0
    assert len(bench.fit().token_ids) == 4096


OLD = tuple(range(10_000, 19_999))


def full_bench() -> Bench:
    """A bench whose cache holds nothing but one path."""
    bench = Bench(FakeMemory(None))
    work, bench.work = bench.work, [QueryProgress(LogprobQuery((*OLD, 0), len(OLD), ()), len(OLD))]
    bench.cache.commit(bench.fit(len(OLD)))
    bench.work = work
    bench.now += 2.0
    return bench


def kept(bench: Bench) -> int:
    """How much of that path a next batch finds."""
    return len(bench.cache.match("", OLD, len(OLD)).slots())


@pytest.mark.parametrize("free", [SMALLEST_BUDGET, 400])
def test_a_dip_costs_the_cache_no_more_than_the_batch_that_runs(free: int) -> None:
    """Larger batches that were planned first, and did not fit, have evicted nothing."""
    bench = full_bench()
    bench.memory.left = needed(free)
    fed = len(bench.fit().token_ids)
    assert fed < 1000
    assert kept(bench) == len(OLD) - fed


def test_what_never_fits_costs_the_cache_nothing() -> None:
    """A batch that is refused for want of memory leaves every prefix there."""
    bench = full_bench()
    bench.memory.left = MIB
    with pytest.raises(OutOfMemory):
        bench.fit()
    bench.cache.begin()
    assert kept(bench) == len(OLD)


def test_memory_that_an_earlier_batch_left_behind_is_there_again() -> None:
    """What the process holds and does not use needs not be free; written storage is in use."""
    bench = Bench(FakeMemory(needed(1000), resident=MIB))
    assert len(bench.fit(1000).token_ids) == 1000
    left_behind = batch_bytes(SHAPE, bench.fit(1000))
    bench.memory.held += 1001 * SHAPE.kv_bytes + left_behind
    bench.memory.left = 0
    bench.now += 1.0
    assert 500 <= len(bench.fit(1000).token_ids) <= 1000
    bench.memory.held -= left_behind
    bench.now += 1.0
    with pytest.raises(OutOfMemory):
        bench.fit(1000)


def test_what_is_kept_of_rows_is_no_room_for_a_batch() -> None:
    """It is not taken for what an earlier batch has left behind."""
    bench = Bench(FakeMemory(needed(1000), resident=MIB))
    left_behind = batch_bytes(SHAPE, bench.fit(1000))
    bench.memory.held += 1001 * SHAPE.kv_bytes + left_behind
    bench.room.kept_bytes = lambda: left_behind
    bench.memory.left = 0
    bench.now += 1.0
    with pytest.raises(OutOfMemory):
        bench.fit(1000)


def test_small_batches_beside_much_memory_do_not_read_files() -> None:
    """A decode step of a few rows must not wait for the kernel's books each time."""
    bench = Bench(FakeMemory(64 * needed(4096)))
    for _ in range(50):
        bench.fit(32)
        bench.now += 0.02
    assert bench.memory.readings == 1
    bench.now = 1.1
    bench.fit(32)
    assert bench.memory.readings == 2


@pytest.mark.parametrize(("times", "good_s"), [(1, 0.0), (3, 0.1), (20, 1.0)])
def test_the_less_is_free_the_newer_is_the_reading(times: int, good_s: float) -> None:
    """Between readings another process may take what was free."""
    bench = Bench(FakeMemory(times * needed(1024)))
    for _ in range(2):  # the first batch writes to fresh pages
        bench.fit(1024)
    before = bench.memory.readings
    bench.now += good_s
    bench.fit(1024)
    assert bench.memory.readings == before + (good_s == 0)
    bench.now += 0.01
    bench.fit(1024)
    assert bench.memory.readings == before + 1 + (good_s == 0)


def test_a_start_that_cannot_end_well_is_refused() -> None:
    """Storage, kept rows and the largest batch must fit; the message names what to lower."""
    batch = largest_batch_bytes(SHAPE, 4096, 8192)
    room = MemoryGuard(SHAPE, FakeMemory(batch + 500 * MIB + row_budget(500 * MIB)))
    room.check_start(500 * MIB, 4096, 8192)
    with pytest.raises(ModelLoadError, match=r"kv_cache_bytes.*max_batch_tokens") as caught:
        room.check_start(501 * MIB, 4096, 8192)
    assert "\n" not in str(caught.value)
    MemoryGuard(SHAPE, FakeMemory(None)).check_start(1 << 60, 4096, 8192)
