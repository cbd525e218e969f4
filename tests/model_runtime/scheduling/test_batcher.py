"""What the model thread does with the requests in hand, without the thread."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.batching.batch import Batch, QueryProgress, QuerySlice
from model_runtime.batching.trie import fed_tokens
from model_runtime.decoding.base import SearchStrategy, SingleRound
from model_runtime.errors import (
    ChainruleError,
    DeadlineExceeded,
    ForwardFailed,
    InvalidQuery,
    NonFiniteLogits,
    OutOfMemory,
    RequestTooLarge,
)
from model_runtime.scheduling.batcher import Batcher
from model_runtime.scheduling.engine_stats import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS
from model_runtime.scheduling.forward import ForwardPipeline
from model_runtime.scheduling.memory_wait import LONGEST_PAUSE_S, LONGEST_WAIT_S
from model_runtime.scheduling.oom_backoff import SMALLEST_BUDGET
from model_runtime.scheduling.request import EngineRequest
from model_runtime.types import LogprobQuery, Priority, QueryResult, RequestOptions, RequestOutput
from tests.model_runtime.chain import Chain
from tests.model_runtime.fake_model import FakeModel, ask, expected, paths
from tests.model_runtime.giver import Giver


@dataclass
class Bench:
    """A batcher on a fake model and a clock that only tests and forwards advance."""

    budget: int = 64
    model: FakeModel = field(default_factory=FakeModel)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.model.forward, self.budget, clock=lambda: self.now)
        self.ends: dict[EngineRequest, RequestOutput[object] | ChainruleError] = {}

    def submit(
        self,
        *queries: LogprobQuery,
        search: SearchStrategy[object] | None = None,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> EngineRequest:
        search = search or SingleRound(queries, cost=fed_tokens(queries))
        job = EngineRequest(search, RequestOptions(priority, deadline), self.now)
        self.batcher.admit(job)
        return job

    def turn(self) -> None:
        """A forward, with what goes before and after it on the model thread."""
        self.now += self.batcher.pause_s
        self.settle()
        self.batcher.forward()
        self.settle()

    def settle(self) -> None:
        self.ends |= dict(self.batcher.collect_finished())

    def finish(self) -> None:
        """Turns until nothing is in hand."""
        for _ in range(1000):
            if self.batcher.idle:
                return
            self.turn()
        raise TimeoutError("the work never ends")

    def value(self, job: EngineRequest) -> object:
        end = self.ends[job]
        return end.value if isinstance(end, RequestOutput) else end

    def pay_for_time(self) -> None:
        """From now on each forward takes a millisecond a token."""
        self.model.on_run = self._take_time

    def _take_time(self, batch: Batch) -> None:
        self.now += len(batch.token_ids) / 1000


def raise_on(*culprits: int, error: Callable[[], Exception]) -> Callable[[Batch], None]:
    """Fail every batch that holds a path that begins with a culprit."""

    def on_run(batch: Batch) -> None:
        if any(path[0] in culprits for path in paths(batch)):
            raise error()

    return on_run


def raise_above(tokens: int) -> Callable[[Batch], None]:
    """Run out of memory on every batch of more tokens."""

    def on_run(batch: Batch) -> None:
        if len(batch.token_ids) > tokens:
            raise OutOfMemory(f"{len(batch.token_ids)} tokens")

    return on_run


# Batches.


def test_what_waits_together_runs_together() -> None:
    """Everything that fits is one forward, each request gets its own answers."""
    bench = Bench()
    jobs = [bench.submit(ask(i, 1, 2), ask(i, 1, 3)) for i in range(10)]
    bench.finish()
    assert len(bench.model.ran) == 1
    assert [bench.value(job) for job in jobs] == [
        (expected(ask(i, 1, 2)), expected(ask(i, 1, 3))) for i in range(10)
    ]


def test_short_work_goes_first_and_equal_work_in_order_of_arrival() -> None:
    """Within a class the earliest virtual deadline leads the batch."""
    bench = Bench()
    bench.submit(ask(1, *range(20)))
    bench.submit(ask(2, 2, 2))
    bench.submit(ask(3, 3, 3))
    bench.finish()
    assert [path[0] for path in paths(bench.model.ran[0])] == [2, 3, 1]


def test_an_urgent_deadline_goes_before_short_work() -> None:
    """The request's own deadline counts where it comes before the virtual one."""
    bench = Bench()
    bench.submit(ask(1, 1))
    bench.submit(ask(2, *range(20)), deadline=1e-6)
    bench.turn()
    assert [path[0] for path in paths(bench.model.ran[0])] == [2, 1]


def test_a_long_path_is_cut_and_joined() -> None:
    """A path above the budget takes several forwards; its answer does not show it."""
    bench, query = Bench(budget=6), ask(*range(20), score_from=8, targets=(3, 4))
    job = bench.submit(query)
    bench.finish()
    assert [len(batch.token_ids) for batch in bench.model.ran] == [6, 6, 6, 2]
    assert bench.value(job) == (expected(query),)


QUERIES = st.builds(
    lambda tokens, cut, targets: ask(*tokens, score_from=1 + cut % len(tokens), targets=targets),
    st.lists(st.integers(0, 2), min_size=1, max_size=12),
    st.integers(0, 100),
    st.sampled_from([(), (1, 2)]),
)


@settings(deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.lists(QUERIES, min_size=1, max_size=4), st.sampled_from(Priority)), min_size=1
    ),
    budget=st.integers(1, 40),
)
def test_batching_never_shows_in_an_answer(
    requests: list[tuple[list[LogprobQuery], Priority]], budget: int
) -> None:
    """Whatever waits together and however it is cut, answers are those of each query alone."""
    bench = Bench(budget)
    jobs = [bench.submit(*queries, priority=priority) for queries, priority in requests]
    bench.finish()
    assert [bench.value(job) for job in jobs] == [
        tuple(expected(query) for query in queries) for queries, _ in requests
    ]
    fed = [token for batch in bench.model.ran for token in batch.token_ids]
    assert len(fed) == len(set(fed))
    assert all(len(batch.token_ids) <= budget for batch in bench.model.ran)


# Searches.


def test_a_search_advances_into_the_very_next_batch() -> None:
    """Each round of a running search is in the next forward, beside whatever else is there."""
    bench, search = Bench(), Chain((5, 5, 5), rounds=4)
    job = bench.submit(search=search)
    for i in range(4):
        bench.submit(ask(100 + i, 1))
        bench.turn()
    bench.finish()
    asked = [(5, 5, 5, 1, 2, 3)[: 3 + i] for i in range(4)]
    held = [paths(batch) for batch in bench.model.ran]
    assert all(path in paths_of_batch for path, paths_of_batch in zip(asked, held, strict=False))
    assert any(len(paths_of_batch) > 1 for paths_of_batch in held[1:])
    assert bench.value(job) == tuple(
        expected(LogprobQuery((5, 5, 5, 1, 2, 3)[: 3 + i], 3 + i, (1,))) for i in range(4)
    )


def test_a_search_that_is_done_from_the_start_needs_no_forward() -> None:
    """Nothing asked is an outcome at once."""
    bench = Bench()
    job = bench.submit(search=Chain((1,), rounds=0))
    bench.finish()
    assert bench.value(job) == ()
    assert not bench.model.ran


@pytest.mark.parametrize("method", ["queries", "advance", "result"])
def test_a_search_that_raises_fails_alone(method: str) -> None:
    """A bug in one search ends its request with the cause; its neighbours are answered."""

    def fail(*_: object) -> None:
        raise KeyError(method)

    bench, search = Bench(), Chain((1, 2), rounds=2)
    setattr(search, method, fail)
    culprit, neighbour = bench.submit(search=search), bench.submit(ask(7, 8))
    bench.finish()
    end = bench.ends[culprit]
    assert type(end) is ForwardFailed
    assert isinstance(end.__cause__, KeyError)
    assert bench.value(neighbour) == (expected(ask(7, 8)),)


def test_a_search_ends_with_what_it_raises_on_purpose() -> None:
    """The runtime's own errors pass through unchanged."""
    refusal = InvalidQuery("no way on")

    class Refusing(Chain):
        def advance(self, answers: Sequence[QueryResult]) -> None:
            raise refusal

    bench = Bench()
    job = bench.submit(search=Refusing((1, 2), rounds=2))
    bench.finish()
    assert bench.ends[job] is refusal


def test_a_query_that_fails_is_told_to_its_search_and_nobody_else() -> None:
    """An answer that is an error ends its query; the others of the batch stand."""
    error = NonFiniteLogits("nan")

    class Flawed(FakeModel):
        def answer(self, query_slice: QuerySlice) -> QueryResult:
            return error if query_slice.query.tokens[0] == 6 else super().answer(query_slice)

    bench = Bench(model=Flawed())
    job, neighbour = bench.submit(ask(5, 1), ask(6, 1)), bench.submit(ask(7, 1))
    bench.finish()
    assert bench.value(job) == (expected(ask(5, 1)), error)
    assert bench.value(neighbour) == (expected(ask(7, 1)),)


def test_a_path_that_the_planner_cannot_place_fails_alone() -> None:
    """Work that gets nothing although it is first can never fit; the rest goes on."""

    class SmallCache(FakeModel):
        def plan(self, work: Sequence[QueryProgress], budget: int) -> Batch:
            fitting = next((i for i, w in enumerate(work) if w.query.last_row > 10), len(work))
            return super().plan(work[:fitting], budget)

    bench = Bench(model=SmallCache())
    job, neighbour = bench.submit(ask(1, 2), ask(*range(20))), bench.submit(ask(*range(9)))
    bench.finish()
    fits, too_large = bench.value(job)  # type: ignore[misc]
    assert fits == expected(ask(1, 2))
    assert type(too_large) is RequestTooLarge
    assert bench.value(neighbour) == (expected(ask(*range(9))),)


# Who need not run.


def test_a_deadline_in_the_queue_keeps_the_request_from_the_model() -> None:
    """What has expired when a batch forms ends there, and the model never sees it."""
    bench = Bench()
    late, other = bench.submit(ask(1, 1), deadline=5.0), bench.submit(ask(2, 2))
    bench.now = 5.0
    bench.finish()
    assert type(bench.ends[late]) is DeadlineExceeded
    assert bench.value(other) == (expected(ask(2, 2)),)
    assert bench.model.seen == {(2, 2)}


def test_a_deadline_ends_a_running_search() -> None:
    """A search whose time runs out between its rounds stops there."""
    bench = Bench()
    job = bench.submit(search=Chain((1,), rounds=50), deadline=5.0)
    bench.turn()
    bench.now = 6.0
    bench.finish()
    assert type(bench.ends[job]) is DeadlineExceeded
    assert len(bench.model.ran) == 1


def test_a_search_that_can_give_answers_at_its_deadline() -> None:
    """What it was told until then is its outcome, the last forward included."""
    bench, search = Bench(), Giver((1,), rounds=50)
    job = bench.submit(search=search, deadline=5.0)
    bench.turn()
    bench.batcher.forward()
    assert len(search.told) == 1
    bench.now = 6.0
    bench.finish()
    assert bench.value(job) == tuple(search.told)
    assert len(search.told) == len(bench.model.ran) == 2


def test_a_search_with_nothing_to_give_ends_like_any_other() -> None:
    """Before its first answer there is nothing, though it could give later."""
    bench = Bench(budget=2)
    queued, begun = Giver((1, 1), rounds=50), Giver((2, 2, 2), rounds=50)
    late = [bench.submit(search=search, deadline=5.0) for search in (queued, begun)]
    bench.settle()
    bench.batcher.forward()
    bench.batcher.forward()
    assert [len(search.told) for search in (queued, begun)] == [0, 0]
    bench.now = 5.0
    queued_answer = bench.batcher.collect_finished()
    assert {finished.job for finished in queued_answer} == set(late)
    ends = {finished.job: finished.end for finished in queued_answer}
    assert isinstance(ends[late[0]], RequestOutput)
    assert type(ends[late[1]]) is DeadlineExceeded


def test_a_search_that_fails_to_give_fails_alone() -> None:
    """What goes wrong while it gives up is its own failure, not a timeout."""
    bench = Bench()
    search = Giver((1,), rounds=50)
    search.finish_early = lambda: 1 // 0  # type: ignore[method-assign, assignment]
    job, other = bench.submit(search=search, deadline=5.0), bench.submit(ask(2, 2))
    bench.turn()
    bench.now = 5.0
    bench.finish()
    assert type(bench.ends[job]) is ForwardFailed
    assert bench.value(other) == (expected(ask(2, 2)),)


def test_who_has_left_is_dropped_before_compute_and_within_a_step() -> None:
    """A request that nobody waits for is not run, or not run on, and reports to nobody."""
    bench = Bench()
    queued, running = bench.submit(ask(1, 1)), bench.submit(search=Chain((2,), rounds=50))
    queued.cancelled = True
    bench.turn()
    running.cancelled = True
    bench.finish()
    assert bench.model.seen == {(2,)}
    assert len(bench.model.ran) == 1
    assert not bench.ends


def test_one_of_two_merged_requests_leaves() -> None:
    """The other one of a shared path is answered."""
    bench = Bench(budget=4)
    leaving, staying = bench.submit(ask(*range(9))), bench.submit(ask(*range(8)))
    bench.turn()
    leaving.cancelled = True
    bench.finish()
    assert bench.value(staying) == (expected(ask(*range(8))),)


# Failures.


@settings(deadline=None)
@given(st.sets(st.integers(0, 15)), st.integers(1, 16))
def test_a_failing_batch_is_narrowed_down_to_its_culprits(culprits: set[int], size: int) -> None:
    """Exactly the requests that fail alone fail, with the cause; every batch is given back."""
    error = ValueError("poison")
    bench = Bench(model=FakeModel(raise_on(*culprits, error=lambda: error)))
    jobs = [bench.submit(ask(i, 1, 2)) for i in range(size)]
    bench.finish()
    for i, job in enumerate(jobs):
        end = bench.ends[job]
        if i in culprits:
            assert type(end) is ForwardFailed
            assert end.__cause__ is error
        else:
            assert bench.value(job) == (expected(ask(i, 1, 2)),)
    assert bool(bench.model.released) == any(i in culprits for i in range(size))


def test_a_failing_plan_is_narrowed_down_too() -> None:
    """A planner that raises on one request ends that request alone."""

    class Picky(FakeModel):
        def plan(self, work: Sequence[QueryProgress], budget: int) -> Batch:
            if any(item.query.tokens[0] == 3 for item in work):
                raise ValueError("cannot plan this")
            return super().plan(work, budget)

    bench = Bench(model=Picky())
    jobs = [bench.submit(ask(i, 1)) for i in range(6)]
    bench.finish()
    assert [type(bench.ends[job]) is ForwardFailed for job in jobs] == [i == 3 for i in range(6)]


def test_who_leaves_while_a_failure_is_narrowed_down_is_not_tried() -> None:
    """Bisection skips what is gone by then."""
    bench = Bench()
    jobs = [bench.submit(ask(i, 1)) for i in range(4)]

    def on_run(batch: Batch) -> None:
        jobs[3].cancelled = True
        if len(paths(batch)) > 1:
            raise ValueError("only one at a time")

    bench.model.on_run = on_run
    bench.finish()
    assert [[path[0] for path in paths(batch)] for batch in bench.model.ran] == [[0], [1], [2]]


def test_the_memory_of_a_failed_forward_is_free_when_it_is_tried_again() -> None:
    """The traceback is kept for the log, but not the tensors in its frames."""

    class Tensor:
        pass

    seen: list[weakref.ref[Tensor]] = []
    still_alive: list[int] = []

    def on_run(batch: Batch) -> None:
        still_alive.append(sum(ref() is not None for ref in seen))
        tensor = Tensor()
        seen.append(weakref.ref(tensor))
        try:
            raise MemoryError(tensor is None)
        except MemoryError as cause:
            raise OutOfMemory("no room") from cause

    bench = Bench(budget=256, model=FakeModel(on_run))
    bench.submit(*[ask(i, *range(40)) for i in range(6)])
    bench.submit(ask(9, 9))
    bench.finish()
    assert len(still_alive) > 3
    assert not any(still_alive)


def test_out_of_memory_halves_the_batch_and_remembers() -> None:
    """All are answered, in smaller batches; the next time nothing runs out of memory."""
    bench = Bench(budget=1024, model=FakeModel(raise_above(300)))
    jobs = [bench.submit(ask(i, *range(50))) for i in range(20)]
    bench.finish()
    assert [bench.value(job) for job in jobs] == [
        (expected(ask(i, *range(50))),) for i in range(20)
    ]
    failed = len(bench.model.released)
    assert failed == 2
    for i in range(20):
        bench.submit(ask(100 + i, *range(50)))
    bench.finish()
    assert len(bench.model.released) == failed
    assert max(len(batch.token_ids) for batch in bench.model.ran) <= 256


def test_out_of_memory_at_one_request_is_its_own_and_soon_forgotten() -> None:
    """Who fits at no size fails alone by name, and batches are as large as before."""
    model = FakeModel(raise_on(3, error=lambda: OutOfMemory("no room")))
    bench = Bench(budget=1024, model=model)
    jobs = [bench.submit(ask(i, *range(50))) for i in range(6)]
    bench.finish()
    assert [type(bench.ends[job]) is OutOfMemory for job in jobs] == [i == 3 for i in range(6)]
    failed = len(model.released)
    for i in range(20):
        bench.submit(ask(100 + i, *range(40)))
    bench.finish()
    assert len(model.released) == failed
    assert len(model.ran[-1].token_ids) == 20 * 40


def test_memory_is_not_looked_for_in_tiny_batches() -> None:
    """Halving ends at a size where it could only make the server slow."""
    sizes: list[int] = []

    def on_run(batch: Batch) -> None:
        sizes.append(len(batch.token_ids))
        raise OutOfMemory("no room")

    bench = Bench(budget=1024, model=FakeModel(on_run))
    job = bench.submit(ask(*range(8 * SMALLEST_BUDGET), targets=()))
    bench.finish()
    assert type(bench.ends[job]) is OutOfMemory
    assert sizes == [SMALLEST_BUDGET * 2**i for i in (3, 2, 1, 0)]


def test_small_batches_that_run_out_of_memory_are_bisected() -> None:
    """Where there is nothing left to halve, the request at fault is looked for."""
    model = FakeModel(raise_on(3, error=lambda: OutOfMemory("no room")))
    bench = Bench(budget=SMALLEST_BUDGET, model=model)
    jobs = [bench.submit(ask(i, 1)) for i in range(6)]
    bench.finish()
    assert [type(bench.ends[job]) is OutOfMemory for job in jobs] == [i == 3 for i in range(6)]


@settings(deadline=None)
@given(
    limits=st.lists(st.integers(1, 600), min_size=1, max_size=4),
    sizes=st.lists(st.integers(2, 300), min_size=1, max_size=12),
)
def test_memory_never_fails_what_fits(limits: list[int], sizes: list[int]) -> None:
    """However little memory there is, and however it changes, who fits at some size is answered.

    A ceiling is found by halving once, and then kept: the same work again fails no forward.
    """
    bench = Bench(budget=512)
    for wave, limit in enumerate(limit for limit in limits for _ in range(2)):
        bench.model.on_run, before = raise_above(limit), len(bench.model.released)
        queries = [ask(1000 * wave + i, *range(size - 1)) for i, size in enumerate(sizes)]
        jobs = [bench.submit(query) for query in queries]
        bench.finish()
        for job, query in zip(jobs, queries, strict=True):
            if limit >= SMALLEST_BUDGET or query.last_row <= limit:
                assert bench.value(job) == (expected(query),)
            else:
                assert type(bench.value(job)) is OutOfMemory
        if limit >= SMALLEST_BUDGET:
            failed = len(bench.model.released) - before
            assert failed <= (0 if wave % 2 else 1 + math.log2(512 / limit))


# Memory that is too short before anything has run.


class CrampedModel(FakeModel):
    """Plans what fits: a batch takes a byte for each token, and more for some paths.

    Args:
        free: bytes for a batch; tests change it.
        extra: bytes that a path takes beside, by its first token.
    """

    def __init__(self, free: int, extra: Mapping[int, int] | None = None) -> None:
        super().__init__()
        self.free = free
        self.retry_after_s: float | None = 7.0
        self.refused = 0
        self._extra = extra or {}

    def plan(self, work: Sequence[QueryProgress], budget: int) -> Batch:
        batch = super().plan(work, budget)
        while self._needed(batch) > self.free:
            if len(batch.token_ids) <= SMALLEST_BUDGET:
                self.refused += 1
                raise OutOfMemory("no room", self.retry_after_s)
            budget = max(SMALLEST_BUDGET, len(batch.token_ids) // 2)
            batch = super().plan(work, budget)
        return batch

    def _needed(self, batch: Batch) -> int:
        return len(batch.token_ids) + sum(self._extra.get(path[0], 0) for path in paths(batch))


def cramped(free: int, extra: Mapping[int, int] | None = None) -> tuple[Bench, CrampedModel]:
    model = CrampedModel(free, extra)
    return Bench(budget=256, model=model), model


def test_a_moment_of_full_memory_fails_nobody() -> None:
    """Three tries find no memory, then it is back: all are answered, and soon."""
    bench, model = cramped(0)
    jobs = [bench.submit(ask(i, *range(50))) for i in range(20)]
    for _ in range(3):
        bench.turn()
    assert not bench.ends
    model.free = 10_000
    bench.finish()
    assert [bench.value(job) for job in jobs] == [
        (expected(ask(i, *range(50))),) for i in range(20)
    ]
    assert bench.now <= 3 * LONGEST_PAUSE_S


def test_who_does_not_fit_alone_fails_alone_in_the_end() -> None:
    """It is tried for a while, and may come back; its neighbours are answered long before."""
    bench, _ = cramped(1000, extra={3: 5000})
    jobs = [bench.submit(ask(i, *range(50))) for i in range(6)]
    others = [job for i, job in enumerate(jobs) if i != 3]
    while not all(job in bench.ends for job in others):
        bench.turn()
    assert bench.now <= LONGEST_PAUSE_S
    assert jobs[3] not in bench.ends
    bench.finish()
    assert [bench.value(job) for job in others] == [
        (expected(ask(i, *range(50))),) for i in range(6) if i != 3
    ]
    end = bench.ends[jobs[3]]
    assert isinstance(end, OutOfMemory)
    assert end.retry_after_s == 7.0
    assert LONGEST_WAIT_S <= bench.now <= LONGEST_WAIT_S + 1


def test_who_can_never_fit_is_not_waited_for() -> None:
    """Where no other process is in the way, waiting helps nobody."""
    bench, model = cramped(1000, extra={0: 5000})
    model.retry_after_s = None
    jobs = [bench.submit(ask(i, *range(50))) for i in range(6)]
    bench.finish()
    assert [isinstance(bench.ends[job], OutOfMemory) for job in jobs] == [True] + 5 * [False]
    assert bench.now == 0.0


def test_memory_that_stays_full_fails_all_after_a_while() -> None:
    """Each has waited, few tries were made meanwhile, and later requests are served."""
    bench, model = cramped(0)
    jobs = [bench.submit(ask(i, *range(50))) for i in range(30)]
    while bench.now < LONGEST_WAIT_S - LONGEST_PAUSE_S:
        bench.turn()
    assert not bench.ends
    assert model.refused <= 12 * LONGEST_WAIT_S / LONGEST_PAUSE_S
    late = bench.submit(ask(99, *range(50)))
    bench.turn()
    while len(bench.ends) < len(jobs):
        bench.turn()
    assert all(isinstance(bench.ends[job], OutOfMemory) for job in jobs)
    assert bench.now <= LONGEST_WAIT_S + 1
    model.free = 10_000
    bench.finish()
    assert bench.value(late) == (expected(ask(99, *range(50))),)


def test_who_waits_for_memory_may_leave_or_run_out_of_time() -> None:
    """Deadlines are kept and who has left is forgotten, though nothing fits."""
    bench, _ = cramped(0)
    late, leaving = bench.submit(ask(1, 1), deadline=1.0), bench.submit(ask(2, 2))
    for _ in range(4):
        bench.turn()
    leaving.cancelled = True
    bench.finish()
    assert type(bench.ends[late]) is DeadlineExceeded
    assert leaving not in bench.ends
    assert 1.0 <= bench.now <= 1.0 + LONGEST_PAUSE_S
    assert bench.batcher.pause_s == 0.0


def test_a_search_goes_on_beside_who_waits_for_memory() -> None:
    """A step of a running search does not wait for the next try of somebody else."""
    bench, model = cramped(1000, extra={3: 5000})
    waiting = bench.submit(ask(3, *range(50)))
    bench.turn()
    began = bench.now + bench.batcher.pause_s
    job = bench.submit(search=Chain((5, 5, 5), rounds=40))
    while job not in bench.ends:
        bench.turn()
    assert bench.now <= began
    assert len(model.ran) == 40
    assert waiting not in bench.ends


@settings(deadline=None)
@given(
    shortage=st.lists(st.integers(0, 400), max_size=30),
    sizes=st.lists(st.integers(2, 100), min_size=1, max_size=10),
    extra=st.dictionaries(st.integers(0, 9), st.integers(0, 400), max_size=3),
)
def test_a_shortage_that_passes_changes_no_answer(
    shortage: list[int], sizes: list[int], extra: dict[int, int]
) -> None:
    """Whoever fits in the end is answered with the same bits, whatever fitted meanwhile."""
    bench, model = cramped(0, extra)
    queries = [ask(i, *range(size - 1)) for i, size in enumerate(sizes)]
    jobs = [bench.submit(query) for query in queries]
    for free in shortage:
        model.free = free
        bench.turn()
    model.free = 10_000
    bench.finish()
    assert [bench.value(job) for job in jobs] == [(expected(query),) for query in queries]


def test_answers_that_do_not_match_the_batch_stop_everything() -> None:
    """A wrong number of answers is a bug that must not be served as somebody's score."""
    model = FakeModel()
    crooked = ForwardPipeline(model.plan, lambda batch: model.run(batch)[1:], model.release)
    batcher = Batcher(crooked, 64, clock=lambda: 0.0)
    batcher.admit(EngineRequest(SingleRound([ask(1, 2)], cost=1), RequestOptions(), 0.0))
    batcher.collect_finished()
    with pytest.raises(ValueError, match="zip"):
        batcher.forward()


def test_what_is_not_an_exception_gets_through() -> None:
    """Only ``Exception`` is a request's fault; anything else is the end of the thread."""
    bench = Bench(model=FakeModel(raise_on(1, error=lambda: SystemExit())))  # type: ignore[arg-type,return-value]
    bench.submit(ask(1, 1))
    with pytest.raises(SystemExit):
        bench.finish()


# Fairness.


def test_a_huge_request_beside_many_small_ones() -> None:
    """The small ones are done first, the huge one finishes, and nothing of it is lost."""
    bench = Bench()
    bench.pay_for_time()
    huge = bench.submit(ask(*range(1000)))
    small = [bench.submit(ask(2000 + i, *range(7))) for i in range(100)]
    turns = 0
    while not all(job in bench.ends for job in small):
        bench.turn()
        turns += 1
    assert turns <= 100 * 7 / 64 + 3
    assert huge not in bench.ends
    bench.finish()
    assert bench.value(huge) == (expected(ask(*range(1000))),)


def test_small_requests_are_never_stuck_behind_a_huge_one() -> None:
    """While a huge request runs, each small newcomer is answered within three batches."""
    bench = Bench()
    bench.pay_for_time()
    huge = bench.submit(ask(*range(3000)))
    waiting: dict[EngineRequest, int] = {}
    for turn in range(1000):
        waiting[bench.submit(ask(5000 + turn, *range(24)))] = turn
        bench.turn()
        for job in [job for job in waiting if job in bench.ends]:
            assert turn - waiting.pop(job) <= 3
        if huge in bench.ends:
            return
    raise AssertionError("the huge request starved")


def test_a_huge_request_gets_through_an_overload_of_small_ones() -> None:
    """Age counts: even where small work alone exceeds the capacity, the huge request ends."""
    bench = Bench()
    bench.pay_for_time()
    huge = bench.submit(ask(*range(640)))
    for turn in range(150):
        for i in range(3):
            bench.submit(ask(5000 + turn, i, *range(24)))
        bench.turn()
    assert isinstance(bench.ends[huge], RequestOutput)


@settings(deadline=None)
@given(
    interactive=st.lists(st.integers(1, 100), min_size=1, max_size=30),
    bulk=st.lists(st.integers(1, 100), min_size=1, max_size=30),
)
def test_both_classes_get_their_share(interactive: list[int], bulk: list[int]) -> None:
    """While both wait, three tokens to one, to within a batch; afterwards all the rest."""
    bench = Bench(budget=32)
    jobs: dict[int, EngineRequest] = {}
    for priority, sizes in ((Priority.INTERACTIVE, interactive), (Priority.BULK, bulk)):
        for size in sizes:
            first = len(jobs)
            jobs[first] = bench.submit(ask(first, *[7] * size), priority=priority)
    fed = dict.fromkeys(Priority, 0)
    while not bench.batcher.idle:
        bench.turn()
        for query_slice in bench.model.ran[-1].query_slices:
            fed[jobs[query_slice.query.tokens[0]].priority] += query_slice.computed_tokens
        left = {job.priority for job in jobs.values() if job not in bench.ends}
        if len(left) == 2:
            assert abs(fed[Priority.INTERACTIVE] / 3 - fed[Priority.BULK]) <= 32
    assert len(bench.ends) == len(jobs)


def test_interactive_work_does_not_wait_for_a_flood_of_bulk_work() -> None:
    """Bulk work takes what is left over and owes it to nobody, so newcomers lead every batch."""
    bench = Bench()
    for i in range(200):
        bench.submit(ask(1000 + i, *range(30)), priority=Priority.BULK)
    for i in range(20):
        job = bench.submit(ask(i, *range(10)))
        bench.turn()
        assert isinstance(bench.ends[job], RequestOutput)


# The books.


def test_counters_say_what_ran() -> None:
    """Forwards, tokens, rows, requests and seconds add up over batches, shared and not."""
    bench = Bench()
    bench.pay_for_time()
    bench.submit(ask(1, 2, 3, 4))
    bench.submit(ask(1, 2, 3, 5))
    bench.finish()
    bench.submit(ask(1, 2, 9))
    bench.finish()
    counters = bench.batcher.counters
    assert (counters.batches, counters.shared_batches, counters.batch_requests) == (2, 1, 3)
    assert (counters.batch_tokens, counters.head_rows) == (3, 8)
    assert counters.cached_tokens == 3 + 2
    assert counters.busy_s == pytest.approx(0.003)


def test_a_request_waits_until_a_forward_holds_it() -> None:
    """From its first forward on it runs, also while that is tried again after a failure."""
    bench = Bench()
    seen: list[list[bool]] = []
    jobs: list[EngineRequest] = []

    def on_run(batch: Batch) -> None:
        seen.append([job.is_waiting for job in jobs])
        raise_on(1, error=lambda: ValueError())(batch)

    bench.model.on_run = on_run
    jobs += [bench.submit(ask(1, 1)), bench.submit(ask(2, 1))]
    assert [job.is_waiting for job in jobs] == [True, True]
    bench.finish()
    assert seen == [[False, False]] * 3


def test_forwards_and_waits_are_counted_by_their_size() -> None:
    """Each forward is in the bucket of its tokens and of its seconds, each request once in that of
    the seconds that it waited."""
    bench = Bench()
    bench.pay_for_time()
    bench.submit(ask(1, 2, 3, 4))
    bench.now = 2.0
    bench.finish()
    bench.submit(ask(1, 9))
    bench.finish()
    counters = bench.batcher.counters
    assert _filled(BATCH_SIZE_BOUNDS, counters.batch_size_counts) == {4.0: 1, 1.0: 1}
    assert _filled(SECONDS_BOUNDS, counters.batch_seconds_counts) == {0.005: 1, 0.001: 1}
    assert _filled(SECONDS_BOUNDS, counters.queue_seconds_counts) == {2.5: 1, 0.001: 1}
    assert (counters.first_batches, counters.queue_s) == (2, 2.0)


def _filled(bounds: tuple[float, ...], counts: tuple[int, ...]) -> dict[float, int]:
    """The buckets that hold something, by their upper bounds."""
    assert len(counts) == len(bounds) + 1
    pairs = zip((*bounds, math.inf), counts, strict=True)
    return {bound: count for bound, count in pairs if count}


def test_the_outcome_tells_waiting_from_running() -> None:
    """Seconds before the first forward are the queue's, those after it the model's."""
    bench = Bench()
    bench.pay_for_time()
    job = bench.submit(ask(1, 2, 3, 4, 5))
    bench.now = 2.0
    bench.finish()
    end = bench.ends[job]
    assert isinstance(end, RequestOutput)
    assert (end.queue_s, end.model_s) == (2.0, pytest.approx(0.004))
    assert (end.computed_tokens, end.cached_tokens) == (4, 0)
