"""The event loop's side: places, timers, hand-offs, the thread's life and death."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.batching.batch import Batch, QueryProgress
from model_runtime.decoding.base import SingleRound
from model_runtime.errors import (
    DeadlineExceeded,
    EngineDied,
    EngineNotReady,
    EngineOverloaded,
    EngineStalled,
    EngineStopping,
    ForwardFailed,
    OutOfMemory,
    RequestTooLarge,
)
from model_runtime.scheduling import memory_wait
from model_runtime.scheduling import scheduler as scheduler_module
from model_runtime.scheduling.admission import DEFAULT_TOKENS_PER_S
from model_runtime.scheduling.scheduler import DEFAULT_OPTIONS, Scheduler
from model_runtime.scheduling.watchdog import LOOKS, Watchdog
from model_runtime.types import LogprobQuery, Priority, QueryResult, RequestOptions, RequestOutput
from tests.model_runtime.fake_model import FakeModel, Gate, ask, expected, paths
from tests.model_runtime.giver import Giver
from tests.model_runtime.on_loop import on_loop

Answers = RequestOutput[tuple[QueryResult, ...]]

WAITS = RequestOptions(on_full="wait")


def scheduler_of(
    model: FakeModel,
    batch_tokens: int = 64,
    queue_tokens: int = 1000,
    watchdog: Watchdog | None = None,
) -> Scheduler:
    return Scheduler(
        model.forward,
        max_batch_tokens=batch_tokens,
        max_queue_tokens=queue_tokens,
        watchdog=watchdog,
    )


@asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[Scheduler]:
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.stop(drain_s=5)


def submit(
    scheduler: Scheduler,
    *queries: LogprobQuery,
    cost: int = 10,
    timeout_s: float | None = None,
    options: RequestOptions = DEFAULT_OPTIONS,
) -> asyncio.Task[Answers]:
    """A client's task. It has submitted as soon as the event loop has had a turn."""
    search = SingleRound(queries, cost=cost)
    options = options if timeout_s is None else within(timeout_s)
    return asyncio.create_task(scheduler.submit(search, options))


def within(seconds: float) -> RequestOptions:
    """A deadline so many seconds from now."""
    return RequestOptions(deadline=time.monotonic() + seconds)


async def at(gate: Gate) -> None:
    """Wait, off the loop, until a forward is at the gate."""
    await asyncio.to_thread(gate.wait_for_forward)


OTHERS: list[threading.Thread] = []
"""Model threads of engines that are other tests'."""


@pytest.fixture(autouse=True)
def _others_threads() -> None:
    OTHERS[:] = threading.enumerate()


def model_threads() -> list[threading.Thread]:
    started = [thread for thread in threading.enumerate() if thread not in OTHERS]
    return [thread for thread in started if thread.name == "model"]


async def turn() -> None:
    """Let every task that is ready run once."""
    await asyncio.sleep(0)


class Endless:
    """A search that asks forever."""

    cost = 10
    done = False

    def queries(self) -> Sequence[LogprobQuery]:
        return [ask(9, 9)]

    def advance(self, answers: Sequence[QueryResult]) -> None:
        pass

    def result(self) -> None:
        raise RuntimeError("never done")


@on_loop
async def test_a_batch_forms_while_the_former_one_runs() -> None:
    """Whatever is submitted during a forward is in the one after it, all together."""
    gate = Gate()
    model = FakeModel(gate.hold)
    async with running(scheduler_of(model)) as scheduler:
        first = submit(scheduler, ask(0, 0))
        await at(gate)
        others = [submit(scheduler, ask(i, i)) for i in range(1, 20)]
        await turn()
        gate.open()
        outcomes = await asyncio.gather(first, *others)
    assert [len(paths(batch)) for batch in model.ran] == [1, 19]
    assert [outcome.value for outcome in outcomes] == [(expected(ask(i, i)),) for i in range(20)]


@on_loop
async def test_a_batch_is_handed_off_once() -> None:
    """Twenty requests that finish together wake the event loop one time."""
    gate = Gate()
    loop, calls = asyncio.get_running_loop(), []
    hand_over = loop.call_soon_threadsafe

    def count(callback: Callable[..., Any], *args: Any, **kwargs: Any) -> asyncio.Handle:
        if threading.current_thread().name == "model":
            calls.append(callback)
        return hand_over(callback, *args, **kwargs)

    loop.call_soon_threadsafe = count  # type: ignore[assignment]
    async with running(scheduler_of(FakeModel(gate.hold))) as scheduler:
        first = submit(scheduler, ask(0, 0))
        await at(gate)
        others = [submit(scheduler, ask(i, i)) for i in range(1, 20)]
        await turn()
        gate.open()
        await asyncio.gather(first, *others)
        assert len(calls) == 2


@on_loop
async def test_a_failing_request_fails_alone() -> None:
    """One exception reaches exactly the waiter it belongs to."""
    error = ValueError("poison")

    def on_run(batch: Batch) -> None:
        if (3, 3) in paths(batch):
            raise error

    async with running(scheduler_of(FakeModel(on_run))) as scheduler:
        tasks = [submit(scheduler, ask(i, i)) for i in range(6)]
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [end for end in ends if isinstance(end, BaseException)]
    assert [type(end) for end in failures] == [ForwardFailed]
    assert failures[0].__cause__ is error
    assert isinstance(ends[3], ForwardFailed)


@on_loop
async def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    """Overload is said while the model is busy; the place is free again after the answer."""
    gate = Gate()
    async with running(scheduler_of(FakeModel(gate.hold), queue_tokens=100)) as scheduler:
        task = submit(scheduler, ask(1, 1), cost=95)
        await at(gate)
        with pytest.raises(EngineOverloaded) as refusal:
            await submit(scheduler, ask(2, 2), cost=10)
        assert refusal.value.retry_after_s > 0
        with pytest.raises(RequestTooLarge):
            await submit(scheduler, ask(2, 2), cost=101)
        gate.open()
        await task
        await submit(scheduler, ask(2, 2), cost=10)


@on_loop
async def test_who_waits_for_room_is_answered() -> None:
    """It is admitted when the forward is done that fills the queue, and its wait is told."""
    gate = Gate()
    model = FakeModel(gate.hold)
    async with running(scheduler_of(model, queue_tokens=100)) as scheduler:
        first = submit(scheduler, ask(1, 1), cost=90)
        await at(gate)
        waits = submit(scheduler, ask(2, 2), cost=90, options=WAITS)
        await turn()
        stats = scheduler.stats()
        assert (stats.queued_requests, stats.waiting_requests, stats.running_requests) == (1, 1, 1)
        assert (stats.queued_tokens, stats.waiting_tokens) == (90, 90)
        assert stats.queued_seconds == pytest.approx(180 / DEFAULT_TOKENS_PER_S)
        waited_from = time.monotonic()
        await asyncio.sleep(0.001)
        waited_until = time.monotonic()
        gate.open()
        outcome = await waits
        assert outcome.value == (expected(ask(2, 2)),)
        assert first.done()
        assert outcome.queue_s >= waited_until - waited_from
    assert model.seen == {(1, 1), (2, 2)}


@on_loop
async def test_who_waits_for_room_is_not_kept_while_the_engine_stops() -> None:
    """Nobody is admitted any more, and hears of it at once."""
    gate = Gate()
    async with running(scheduler_of(FakeModel(gate.hold), queue_tokens=100)) as scheduler:
        admitted = submit(scheduler, ask(1, 1), cost=100)
        await at(gate)
        waits = submit(scheduler, ask(2, 2), options=WAITS)
        await turn()
        stopping = asyncio.create_task(scheduler.stop(drain_s=5))
        with pytest.raises(EngineStopping):
            await waits
        assert not admitted.done()
        gate.open()
        await admitted
        await stopping


@on_loop
async def test_what_is_not_tokenized_yet_counts_apart() -> None:
    """It is told with the queue, and takes no room in it; a nearly full queue lets nobody begin."""
    gate = Gate()
    async with running(scheduler_of(FakeModel(gate.hold), queue_tokens=100)) as scheduler:
        async with scheduler.reserve(60):
            stats = scheduler.stats()
            assert (stats.queued_tokens, stats.waiting_tokens) == (60, 60)
            assert (stats.waiting_requests, stats.queued_requests) == (1, 0)
            scheduler.check_room()
            first, second = (
                submit(scheduler, ask(1, 1), cost=48),
                submit(scheduler, ask(2), cost=48),
            )
            await at(gate)
            stats = scheduler.stats()
            assert (stats.queued_tokens, stats.queued_requests) == (156, 2)
            # The second one may have come into the forward of the first.
            assert stats.running_requests in (1, 2)
            assert stats.waiting_tokens == 60 + 48 * (2 - stats.running_requests)
            with pytest.raises(EngineOverloaded) as refusal:
                scheduler.check_room()
            assert refusal.value.retry_after_s > 0
        gate.open()
        await first
        await second
        assert scheduler.stats().queued_tokens == 0


@on_loop
async def test_bulk_work_cannot_keep_interactive_work_out() -> None:
    """With bulk at its limit there is a place for an interactive request."""
    gate = Gate()
    async with running(scheduler_of(FakeModel(gate.hold), queue_tokens=100)) as scheduler:
        bulk = RequestOptions(Priority.BULK)
        search = SingleRound([ask(1, 1)], cost=75)
        task = asyncio.create_task(scheduler.submit(search, bulk))
        await at(gate)
        with pytest.raises(EngineOverloaded):
            await scheduler.submit(SingleRound([ask(2, 2)], cost=1), bulk)
        gate.open()
        await submit(scheduler, ask(3, 3), cost=25)
        await task


@on_loop
async def test_a_deadline_is_kept_while_a_long_forward_runs() -> None:
    """Queued or running, the waiter hears of its timeout in time and its place is free."""
    gate = Gate()
    model = FakeModel(gate.hold)
    async with running(scheduler_of(model)) as scheduler:
        runs = submit(scheduler, ask(1, 1), timeout_s=0.1)
        await at(gate)
        queued = submit(scheduler, ask(2, 2), timeout_s=0.1)
        for task in (runs, queued):
            with pytest.raises(DeadlineExceeded):
                await task
        assert scheduler.stats().queued_tokens == 0
        gate.open()
    assert model.seen == {(1, 1)}


@on_loop
async def test_a_search_that_can_give_is_waited_for_over_its_deadline() -> None:
    """Its deadline ends the search, and the forward that runs then hands over what is there."""
    gate = Gate()
    async with running(scheduler_of(FakeModel(gate.hold))) as scheduler:
        search = Giver((1,), rounds=900)
        task = asyncio.create_task(scheduler.submit(search, within(0.2)))
        await at(gate)
        await asyncio.sleep(0.3)
        assert not task.done()
        gate.let_one_through()
        outcome = await task
    assert outcome.value == (expected(ask(1, targets=(1,))),)
    assert scheduler.stats().queued_tokens == 0


@on_loop
async def test_a_search_that_can_give_is_not_waited_for_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A forward that outlasts the deadline by too much ends it like any other."""
    monkeypatch.setattr(scheduler_module, "ANYTIME_GRACE_S", 0.01)
    gate = Gate()
    async with running(scheduler_of(FakeModel(gate.hold))) as scheduler:
        search = Giver((1,), rounds=900)
        task = asyncio.create_task(scheduler.submit(search, within(0.1)))
        await at(gate)
        with pytest.raises(DeadlineExceeded):
            await task
        assert scheduler.stats().queued_tokens == 0
        gate.open()
    assert not search.given_up


@on_loop
async def test_nothing_is_kept_of_a_finished_request() -> None:
    """An answered request is forgotten at once, however long its timeout still runs."""
    async with running(scheduler_of(FakeModel())) as scheduler:
        search = SingleRound([ask(1, 1)], cost=10)
        await scheduler.submit(search, within(1000))
        kept = weakref.ref(search)
        del search
        await submit(scheduler, ask(2, 2))
        gc.collect()
        assert kept() is None


@on_loop
async def test_nothing_is_kept_of_requests_that_time_out_during_a_forward() -> None:
    """Two hundred that come and go while the model is busy hold neither place nor memory."""
    gate = Gate()
    model = FakeModel(gate.hold)
    async with running(scheduler_of(model)) as scheduler:
        first, kept = submit(scheduler, ask(1, 1)), []
        await at(gate)
        for i in range(200):
            search = SingleRound([ask(2, i)], cost=900)
            kept.append(weakref.ref(search))
            with pytest.raises(DeadlineExceeded):
                await scheduler.submit(search, within(0.0))
        stays = submit(scheduler, ask(3, 3))
        await turn()
        del search
        gc.collect()
        assert not model.ran
        assert [ref for ref in kept if ref() is not None] == []
        stats = scheduler.stats()
        assert (stats.queued_requests, stats.queued_tokens) == (2, 20)
        gate.open()
        assert [(await task).value for task in (first, stays)] == [
            (expected(ask(1, 1)),),
            (expected(ask(3, 3)),),
        ]
        stats = scheduler.stats()
        assert (stats.queued_requests, stats.queued_tokens, stats.batches) == (0, 0, 2)
    assert model.seen == {(1, 1), (3, 3)}


@on_loop
async def test_nothing_is_kept_of_requests_that_are_cancelled_during_a_forward() -> None:
    """Clients that hang up together leave nothing behind, though the model is busy."""
    gate = Gate()
    model = FakeModel(gate.hold)
    async with running(scheduler_of(model)) as scheduler:
        first = submit(scheduler, ask(1, 1))
        await at(gate)
        searches = [SingleRound([ask(2, i)], cost=4) for i in range(200)]
        kept = [weakref.ref(search) for search in searches]
        tasks = [asyncio.create_task(scheduler.submit(search)) for search in searches]
        await turn()
        assert scheduler.stats().queued_requests == 201
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        del searches, tasks, task
        await turn()
        gc.collect()
        assert [ref for ref in kept if ref() is not None] == []
        assert scheduler.stats().queued_tokens == 10
        gate.open()
        await first
    assert model.seen == {(1, 1)}


@on_loop
async def test_a_timeout_of_zero_never_reaches_the_model() -> None:
    """What has no time is not run."""
    model = FakeModel()
    async with running(scheduler_of(model)) as scheduler:
        with pytest.raises(DeadlineExceeded):
            await submit(scheduler, ask(1, 1), timeout_s=0.0)
    assert not model.seen


@on_loop
async def test_a_client_that_leaves_the_queue_is_not_computed() -> None:
    """Cancelling frees the place at once, and the model never sees the request."""
    gate = Gate()
    model = FakeModel(gate.hold)
    async with running(scheduler_of(model)) as scheduler:
        first = submit(scheduler, ask(1, 1))
        await at(gate)
        leaving = submit(scheduler, ask(2, 2))
        await turn()
        assert scheduler.stats().queued_requests == 2
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert scheduler.stats().queued_requests == 1
        gate.open()
        await first
    assert model.seen == {(1, 1)}


@on_loop
async def test_a_client_that_leaves_stops_its_search_within_a_step() -> None:
    """A search without end is over after the forward during which its client left."""
    gate = Gate()
    model = FakeModel(gate.hold)
    async with running(scheduler_of(model)) as scheduler:
        task = asyncio.create_task(scheduler.submit(Endless()))
        await at(gate)
        gate.let_one_through()
        await at(gate)
        task.cancel()
        await asyncio.wait([task])
        gate.open()
    assert len(model.ran) == 2


@settings(max_examples=25, deadline=None)
@given(
    clients=st.lists(
        st.tuples(st.integers(1, 8), st.none() | st.integers(0, 6)), min_size=1, max_size=8
    ),
    room=st.sampled_from([15, 35, 1000]),
)
@on_loop
async def test_whenever_clients_leave_everything_returns_to_zero(
    clients: list[tuple[int, int | None]], room: int
) -> None:
    """Leaving before, during or after any step frees the place, and the others are answered,
    whether they waited for room or not."""
    gate = Gate()
    model = FakeModel(gate.hold)
    scheduler = scheduler_of(model, batch_tokens=5, queue_tokens=room)
    async with running(scheduler):
        tasks = [
            submit(scheduler, ask(i, *range(size)), options=WAITS)
            for i, (size, _) in enumerate(clients)
        ]
        for moment in range(7):
            for task, (_, leaves_at) in zip(tasks, clients, strict=True):
                if leaves_at == moment:
                    task.cancel()
            gate.let_one_through()
            await asyncio.sleep(0)
        gate.open()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        stats = scheduler.stats()
        assert (stats.queued_requests, stats.queued_tokens) == (0, 0)
    for i, (end, (size, leaves_at)) in enumerate(zip(ends, clients, strict=True)):
        if isinstance(end, BaseException):
            assert isinstance(end, asyncio.CancelledError)
            assert leaves_at is not None
        else:
            assert end.value == (expected(ask(i, *range(size))),)
    assert scheduler.stats().running_requests == 0


@on_loop
async def test_stopping_finishes_what_is_admitted_and_takes_nothing_new() -> None:
    """During the drain the door is closed, what is inside is answered, the thread ends.

    A second stop changes nothing about it.
    """
    gate = Gate()
    scheduler = scheduler_of(FakeModel(gate.hold))
    scheduler.start()
    admitted = [submit(scheduler, ask(i, i)) for i in range(3)]
    await at(gate)
    stops = [asyncio.create_task(scheduler.stop(drain_s)) for drain_s in (5, 0)]
    await turn()
    assert not scheduler.stats().ready
    with pytest.raises(EngineStopping):
        await submit(scheduler, ask(9, 9))
    gate.open()
    outcomes = await asyncio.gather(*admitted)
    assert [outcome.value for outcome in outcomes] == [(expected(ask(i, i)),) for i in range(3)]
    await asyncio.gather(*stops)
    await scheduler.stop(drain_s=5)
    assert not model_threads()


@on_loop
async def test_the_drain_ends_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward that hangs delays the end by no more than the documented wait."""
    monkeypatch.setattr(scheduler_module, "LAST_FORWARD_S", 0.01)
    gate = Gate()
    scheduler = scheduler_of(FakeModel(gate.hold))
    scheduler.start()
    hanging = submit(scheduler, ask(1, 1))
    await at(gate)
    queued = submit(scheduler, ask(2, 2))
    await turn()
    await scheduler.stop(drain_s=0.01)
    for task in (hanging, queued):
        with pytest.raises(EngineStopping):
            await task
    assert scheduler.stats().queued_tokens == 0
    (thread,) = model_threads()
    gate.open()
    await asyncio.to_thread(thread.join)


@on_loop
async def test_a_stopped_drain_goes_on() -> None:
    """Who waits for the stop may leave; the stop itself is not undone."""
    gate = Gate()
    scheduler = scheduler_of(FakeModel(gate.hold))
    scheduler.start()
    admitted = submit(scheduler, ask(1, 1))
    await at(gate)
    impatient = asyncio.create_task(scheduler.stop(drain_s=5))
    await turn()
    impatient.cancel()
    await asyncio.wait([impatient])
    gate.open()
    await admitted
    await scheduler.stop(drain_s=5)


@on_loop
async def test_what_was_never_started_refuses_and_stops() -> None:
    """Without a thread there is no work to take and none to end."""
    scheduler = scheduler_of(FakeModel())
    assert not scheduler.stats().ready
    with pytest.raises(EngineNotReady):
        await submit(scheduler, ask(1, 1))
    await scheduler.stop(drain_s=5)


@on_loop
async def test_the_death_of_the_thread_reaches_everyone() -> None:
    """Running, queued and later requests hear of it; health and ``wait_dead`` tell."""
    gate = Gate()

    def on_run(batch: Batch) -> None:
        gate.hold(batch)
        raise SystemExit("out of luck")

    scheduler = scheduler_of(FakeModel(on_run))
    scheduler.start()
    assert scheduler.stats().alive
    runs = submit(scheduler, ask(1, 1))
    await at(gate)
    queued = submit(scheduler, ask(2, 2), cost=900)
    waits = submit(scheduler, ask(4, 4), cost=900, options=WAITS)
    await turn()
    gate.open()
    cause = await asyncio.wait_for(scheduler.wait_dead(), timeout=1)
    assert isinstance(cause, SystemExit)
    for task in (runs, queued, waits, submit(scheduler, ask(3, 3))):
        with pytest.raises(EngineDied):
            await asyncio.wait_for(task, timeout=1)
    stats = scheduler.stats()
    assert (stats.alive, stats.ready, stats.queued_tokens) == (False, False, 0)
    await asyncio.wait_for(scheduler.stop(drain_s=5), timeout=1)


class FullModel(FakeModel):
    """There is no memory to plan anything until ``free`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.refused = threading.Semaphore(0)

    def plan(self, work: Sequence[QueryProgress], budget: int) -> Batch:
        if not self.free.is_set():
            self.refused.release()
            raise OutOfMemory("no room", retry_after_s=1.0)
        return super().plan(work, budget)


@on_loop
async def test_who_waits_for_memory_is_answered_when_it_is_back() -> None:
    """Others whose time runs out or who leave do so while everybody waits."""
    model = FullModel()
    async with running(scheduler_of(model)) as scheduler:
        waits, late = submit(scheduler, ask(1, 1)), submit(scheduler, ask(2, 2), timeout_s=0.01)
        leaves = submit(scheduler, ask(3, 3))
        await asyncio.to_thread(model.refused.acquire, timeout=10)
        leaves.cancel()
        with pytest.raises(DeadlineExceeded):
            await late
        await asyncio.wait([leaves])
        assert scheduler.stats().queued_requests == 1
        model.free.set()
        assert (await waits).value == (expected(ask(1, 1)),)
    assert (1, 1) in model.seen


@on_loop
async def test_stopping_does_not_wait_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause until the next try ends when the engine stops."""
    monkeypatch.setattr(memory_wait, "FIRST_PAUSE_S", 60.0)
    monkeypatch.setattr(memory_wait, "LONGEST_PAUSE_S", 60.0)
    model = FullModel()
    scheduler = scheduler_of(model)
    scheduler.start()
    waits = submit(scheduler, ask(1, 1))
    await asyncio.to_thread(model.refused.acquire, timeout=10)
    await scheduler.stop(drain_s=0)
    with pytest.raises(EngineStopping):
        await waits
    assert not model_threads()


@on_loop
async def test_what_a_forward_reports_is_progress() -> None:
    """A forward that gets on from layer to layer is not given up, however long it takes."""
    told: list[Callable[[], None]] = []
    watchdog = Watchdog(10.0)
    model = FakeModel().forward._replace(report_to=told.append)
    Scheduler(model, max_batch_tokens=64, max_queue_tokens=640, watchdog=watchdog)
    (report,) = told
    report()
    for _ in range(3 * LOOKS):
        report()
        assert not watchdog.look()
    looks = [watchdog.look() for _ in range(LOOKS)]
    assert looks[-1] and not any(looks[:-1])


@on_loop
async def test_a_forward_that_hangs_counts_as_death() -> None:
    """Running, queued and later requests hear of it, though the thread is still there."""
    gate = Gate()
    scheduler = scheduler_of(FakeModel(gate.hold), watchdog=Watchdog(0.05))
    scheduler.start()
    hangs = submit(scheduler, ask(1, 1))
    await at(gate)
    queued = submit(scheduler, ask(2, 2))
    cause = await scheduler.wait_dead()
    assert isinstance(cause, EngineStalled)
    assert "0.05 s" in str(cause)
    for task in (hangs, queued, submit(scheduler, ask(3, 3))):
        with pytest.raises(EngineDied):
            await task
    stats = scheduler.stats()
    assert (stats.alive, stats.ready, stats.queued_tokens) == (False, False, 0)
    await asyncio.wait_for(scheduler.stop(drain_s=5), timeout=1)
    (thread,) = model_threads()
    gate.open()
    await asyncio.to_thread(thread.join)


@on_loop
async def test_requests_whose_time_runs_out_do_not_hide_a_hang() -> None:
    """Nobody may be left to wait for the forward, and it hangs none the less."""
    gate = Gate()
    scheduler = scheduler_of(FakeModel(gate.hold), watchdog=Watchdog(2.0))
    scheduler.start()
    request = submit(scheduler, ask(1, 1), timeout_s=1.0)
    await at(gate)
    with pytest.raises(DeadlineExceeded):
        await request
    assert isinstance(await scheduler.wait_dead(), EngineStalled)
    await scheduler.stop(drain_s=0)
    gate.open()
    for thread in model_threads():
        await asyncio.to_thread(thread.join)


@on_loop
async def test_readiness_falls_during_a_long_forward_and_comes_back() -> None:
    """Long before a forward is given up no more work is sent; its end is seen at once."""
    gate, watchdog = Gate(), Watchdog(1000.0)  # so long that the test alone looks
    async with running(scheduler_of(FakeModel(gate.hold), watchdog=watchdog)) as scheduler:
        for i in range(3):
            task = submit(scheduler, ask(i, i))
            await at(gate)
            assert not any(watchdog.look() for _ in range(LOOKS))
            stats = scheduler.stats()
            assert (stats.ready, stats.alive, stats.stalled_s) == (False, True, 900.0)
            gate.let_one_through()
            await task
            stats = scheduler.stats()
            assert (stats.ready, stats.stalled_s) == (True, 0.0)


def test_a_loop_that_is_gone_ends_the_thread_quietly() -> None:
    """Whoever closes the event loop under a running request leaves no thread that complains."""
    gate, loop = Gate(), asyncio.new_event_loop()
    scheduler = scheduler_of(FakeModel(gate.hold))

    async def begin() -> Coroutine[Any, Any, Answers]:
        scheduler.start()
        request = scheduler.submit(SingleRound([ask(1, 1)], cost=10))
        request.send(None)
        await at(gate)
        return request

    request = loop.run_until_complete(begin())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    gate.open()
    (thread,) = model_threads()
    thread.join(timeout=5)
    assert not thread.is_alive()
    request.close()


@on_loop
async def test_stats_tell_the_moment() -> None:
    """Gauges show what is admitted and what runs, from any thread, while a forward runs."""
    gate = Gate()
    async with running(scheduler_of(FakeModel(gate.hold))) as scheduler:
        tasks = [submit(scheduler, ask(1, 1), cost=7)]
        await at(gate)
        tasks += [submit(scheduler, ask(i, i), cost=5) for i in range(2, 5)]
        await turn()
        stats = await asyncio.to_thread(scheduler.stats)
        assert (stats.ready, stats.alive) == (True, True)
        assert (stats.queued_requests, stats.queued_tokens) == (4, 22)
        assert (stats.waiting_requests, stats.waiting_tokens, stats.running_requests) == (3, 15, 1)
        assert stats.queued_seconds == pytest.approx(22 / DEFAULT_TOKENS_PER_S)
        gate.open()
        await asyncio.gather(*tasks)
        stats = scheduler.stats()
        assert (stats.queued_requests, stats.queued_tokens, stats.queued_seconds) == (0, 0, 0)
        assert (stats.batches, stats.shared_batches, stats.batch_requests) == (2, 1, 4)
