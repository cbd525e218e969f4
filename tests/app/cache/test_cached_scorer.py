"""A query is asked once, whoever comes, leaves or fails while it is on its way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cache.cached_scorer import MAX_FAILED_JOINS, QUERIES_ON_LOOP, CachedScorer
from app.cache.inflight import MAX_LISTED_QUERIES
from app.cache.score_cache import ScoreCache
from app.requests.worker_threads import WorkerThreads
from model_runtime import (
    ChainruleError,
    DeadlineExceeded,
    Engine,
    EngineConfig,
    EngineOverloaded,
    ForwardFailed,
    InvalidQuery,
    LogprobQuery,
    LogprobResult,
    Priority,
    QueryResult,
    RequestOptions,
    RequestOutput,
)
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

OPTIONS = RequestOptions()
BAD = -1
"""A path with this id has no answer."""


def query(*ids: int) -> LogprobQuery:
    """The path 1, then ``ids``, which are scored."""
    return LogprobQuery((1, *ids), 1)


def answer_to(asked: LogprobQuery) -> QueryResult:
    """What the gated engine says of a path."""
    if BAD in asked.tokens:
        return InvalidQuery("no such path")
    return LogprobResult(tuple(-float(token) for token in asked.tokens[1:]))


class GatedEngine:
    """Answers when told to, in the order of arrival; counts who waits.

    Args:
        room: queries that may wait; beyond it a request is refused.

    Attributes:
        farewell: turns of the loop that it takes to end what is cancelled.
    """

    def __init__(self, room: int = 1_000_000) -> None:
        self.asked: list[tuple[LogprobQuery, ...]] = []
        self.options: list[RequestOptions] = []
        self.held = 0
        self.waiting: list[asyncio.Future[None]] = []
        self.farewell = 0
        self._room = room

    async def score(
        self, queries: Sequence[LogprobQuery], options: RequestOptions
    ) -> RequestOutput[tuple[QueryResult, ...]]:
        self.asked.append(tuple(queries))
        self.options.append(options)
        if self.held + len(queries) > self._room:
            raise EngineOverloaded("full", retry_after_s=1.0)
        self.held += len(queries)
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(gate)
        try:
            async with asyncio.timeout_at(options.deadline):
                await gate
        except TimeoutError:
            raise DeadlineExceeded("late") from None
        except asyncio.CancelledError:
            for _ in range(self.farewell):
                await asyncio.sleep(0)
            raise
        finally:
            self.held -= len(queries)
            self.waiting.remove(gate)
        value = tuple(map(answer_to, queries))
        return RequestOutput(value, 10, 1, queue_s=0.5, model_s=0.25)

    def open(self, failure: ChainruleError | None = None) -> None:
        """Let the first one go, or fail."""
        gate = self.waiting[0]
        if failure is None:
            gate.set_result(None)
        else:
            gate.set_exception(failure)


class House:
    """A gated engine behind shared scores."""

    def __init__(self, cache_bytes: int = 0, room: int = 1_000_000) -> None:
        self.engine = GatedEngine(room)
        self.cache = ScoreCache(cache_bytes)
        self.scores = CachedScorer(self.engine.score, "f", self.cache, WorkerThreads(2))

    async def enter(
        self, *queries: LogprobQuery, options: RequestOptions = OPTIONS
    ) -> asyncio.Task[RequestOutput[tuple[QueryResult, ...]]]:
        """A request that waits by now."""
        task = asyncio.create_task(self.scores.score(queries, options))
        await settle()
        return task

    async def serve(self) -> None:
        """Answer whatever is asked until nobody waits."""
        while self.engine.waiting:
            self.engine.open()
            await settle()

    @property
    def quiet(self) -> bool:
        """Nothing is held for anybody."""
        return self.scores.inflight_queries == self.engine.held == len(self.engine.waiting) == 0


async def settle() -> None:
    """Let everything run that can run."""
    for _ in range(32):
        await asyncio.sleep(0)


async def test_one_request_is_passed_on_as_it_is() -> None:
    """Alone, a request gets the engine's answers, in its order, and the engine's usage."""
    house = House()
    task = await house.enter(query(3), query(BAD), query(2), options=RequestOptions(Priority.BULK))
    house.engine.open()
    outcome = await task
    assert outcome.value[0] == LogprobResult((-3.0,))
    assert isinstance(outcome.value[1], InvalidQuery)
    assert outcome.value[2] == LogprobResult((-2.0,))
    assert replace(outcome, value=None) == RequestOutput(None, 10, 1, queue_s=0.5, model_s=0.25)
    assert house.engine.options == [RequestOptions(Priority.BULK)]
    assert house.quiet


async def test_identical_requests_at_a_time_are_asked_once() -> None:
    """The later ones get the first one's answers; what was computed is billed once."""
    house = House()
    tasks = [await house.enter(query(3), query(4)) for _ in range(3)]
    assert house.engine.asked == [(query(3), query(4))]
    house.engine.open()
    outcomes = await asyncio.gather(*tasks)
    assert [outcome.value for outcome in outcomes] == [outcomes[0].value] * 3
    assert [outcome.reused_scores for outcome in outcomes] == [0, 2, 2]
    assert [outcome.computed_tokens for outcome in outcomes] == [10, 0, 0]
    assert house.cache.stats().shared == 4
    assert house.quiet


async def test_only_what_nobody_asks_is_asked() -> None:
    """Of overlapping requests each asks its own part, and all parts are put together in order."""
    house = House()
    first = await house.enter(query(3), query(4))
    second = await house.enter(query(5), query(4), query(3))
    assert house.engine.asked == [(query(3), query(4)), (query(5),)]
    await house.serve()
    assert (await second).value == tuple(map(answer_to, (query(5), query(4), query(3))))
    assert ((await first).reused_scores, (await second).reused_scores) == (0, 2)


async def test_a_query_that_a_request_repeats_is_asked_once() -> None:
    """Each place gets its answer; nothing counts as reused."""
    house = House()
    task = await house.enter(query(3), query(4), query(3))
    assert house.engine.asked == [(query(3), query(4))]
    house.engine.open()
    outcome = await task
    assert outcome.value == tuple(map(answer_to, (query(3), query(4), query(3))))
    assert outcome.reused_scores == 0


async def test_tenants_share_nothing() -> None:
    """The same query under another salt is asked again, in flight and from the cache."""
    house = House(cache_bytes=1 << 20)
    for salt in ("a/", "b/", ""):
        options = RequestOptions(cache_salt=salt)
        task = await house.enter(query(3), options=options)
        other = await house.enter(query(3), options=RequestOptions(cache_salt=salt + "x"))
        await house.serve()
        assert [(await task).reused_scores, (await other).reused_scores] == [0, 0]
    assert len(house.engine.asked) == 6


async def test_kept_answers_ask_nothing() -> None:
    """With a budget, what was answered once needs no engine; counters say so."""
    house = House(cache_bytes=1 << 20)
    first = await house.enter(query(3), query(4))
    house.engine.open()
    second = await house.enter(query(4), query(3))
    outcome = await second
    assert outcome.value == tuple(reversed((await first).value))
    assert replace(outcome, value=None) == RequestOutput(None, 0, 0, 0.0, 0.0, reused_scores=2)
    assert len(house.engine.asked) == 1
    stats = house.cache.stats()
    assert (stats.hits, stats.misses, stats.shared) == (2, 2, 0)


async def test_errors_are_never_kept() -> None:
    """A query that failed is asked again when it comes again."""
    house = House(cache_bytes=1 << 20)
    for _ in range(2):
        task = await house.enter(query(BAD), query(3))
        await house.serve()
        assert isinstance((await task).value[0], InvalidQuery)
    assert house.engine.asked == [(query(BAD), query(3)), (query(BAD),)]


async def test_the_first_may_leave() -> None:
    """Who waits for the same gets the answer that is under way; it is not asked again."""
    house = House()
    first, second = await house.enter(query(3)), await house.enter(query(3))
    first.cancel()
    await settle()
    assert first.cancelled()
    house.engine.open()
    assert (await second).value == (LogprobResult((-3.0,)),)
    assert len(house.engine.asked) == 1
    assert house.quiet


async def test_the_last_to_leave_ends_the_work() -> None:
    """Nothing is computed for nobody, and whoever comes after that starts anew."""
    house = House()
    tasks = [await house.enter(query(3)) for _ in range(3)]
    for task in tasks:
        assert house.engine.held == 1
        task.cancel()
        await settle()
    assert house.quiet
    again = await house.enter(query(3))
    house.engine.open()
    assert (await again).reused_scores == 0


async def test_whoever_comes_while_the_work_is_ended_starts_anew() -> None:
    """Nobody joins what is being cancelled, however long that takes."""
    house = House()
    house.engine.farewell = 50
    first = await house.enter(query(3))
    first.cancel()
    await settle()
    assert first.cancelled()
    assert house.engine.held == 1
    second = await house.enter(query(3))
    assert len(house.engine.asked) == 2
    house.engine.waiting[-1].set_result(None)
    assert (await second).value == (LogprobResult((-3.0,)),)
    for _ in range(house.engine.farewell):
        await asyncio.sleep(0)
    assert house.quiet


async def test_each_keeps_its_own_deadline() -> None:
    """Who has less time ends earlier, and the others are still answered."""
    house = House()
    first = await house.enter(query(3))
    hasty = await house.enter(query(3), options=RequestOptions(deadline=time.monotonic() + 0.01))
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert house.engine.held == 1
    house.engine.open()
    assert (await first).value == (LogprobResult((-3.0,)),)


async def test_the_first_may_run_out_of_time() -> None:
    """Its deadline is not that of the others: they ask again, once, and are answered."""
    house = House()
    hasty = await house.enter(query(3), options=RequestOptions(deadline=time.monotonic() + 0.5))
    patient = [await house.enter(query(3)) for _ in range(3)]
    with pytest.raises(DeadlineExceeded):
        await hasty
    async with asyncio.timeout(5):
        while len(house.engine.asked) == 1:
            await asyncio.sleep(0.001)
    await house.serve()
    assert {(await task).value for task in patient} == {(LogprobResult((-3.0,)),)}
    assert len(house.engine.asked) == 2
    assert house.quiet


async def test_the_engine_hears_the_deadline() -> None:
    """It passes through as it is."""
    house = House()
    task = await house.enter(
        query(3), options=(options := RequestOptions(deadline=time.monotonic() + 60.0))
    )
    house.engine.open()
    await task
    assert house.engine.options == [options]


async def test_the_refusal_of_a_large_request_is_its_own() -> None:
    """Who waits for a part of what the queue has no room for asks for that part alone."""
    house = House(room=2)
    large = asyncio.create_task(house.scores.score([query(n) for n in (3, 4, 5)], OPTIONS))
    small = asyncio.create_task(house.scores.score([query(4)], OPTIONS))
    await settle()
    with pytest.raises(EngineOverloaded):
        await large
    house.engine.open()
    assert (await small).value == (LogprobResult((-4.0,)),)
    assert house.quiet


async def test_a_failure_is_raised_to_whoever_asked() -> None:
    """It does not wait until what it wants of others has arrived."""
    house = House()
    slow = await house.enter(query(3))
    both = await house.enter(query(3), query(4))
    gate = house.engine.waiting[1]
    gate.set_exception(ForwardFailed("broken"))
    with pytest.raises(ForwardFailed):
        await both
    house.engine.open()
    assert (await slow).value == (LogprobResult((-3.0,)),)
    assert house.quiet


async def test_who_is_let_down_asks_by_itself() -> None:
    """Others that fail again and again cannot keep a request from being answered."""
    house = House()
    failing = [await house.enter(query(3))]
    waiter = await house.enter(query(3))
    for count in range(1, MAX_FAILED_JOINS + 1):
        assert len(house.engine.asked) == count
        house.engine.open(ForwardFailed("broken"))
        # It comes when the failure is there and the waiter does not know of it yet.
        failing.append(await house.enter(query(3)))
    assert len(house.engine.asked) == MAX_FAILED_JOINS + 2
    await house.serve()
    assert (await waiter).value == (LogprobResult((-3.0,)),)
    ends = await asyncio.gather(*failing, return_exceptions=True)
    assert [isinstance(end, ForwardFailed) for end in ends] == [
        *[True] * MAX_FAILED_JOINS,
        False,
    ]
    assert house.quiet


async def test_little_does_not_wait_for_much() -> None:
    """A short request is not bound to a long one in which its query happens to be."""
    house = House()
    long = await house.enter(*[query(n) for n in range(100)])
    short = await house.enter(query(7))
    assert len(house.engine.asked) == 2
    await house.serve()
    assert (await short).value == (await long).value[7:8]


async def test_interactive_work_does_not_wait_for_bulk_work() -> None:
    """Bulk work may wait for either."""
    bulk = RequestOptions(Priority.BULK)
    house = House()
    await house.enter(query(3), options=bulk)
    await house.enter(query(3), options=bulk)
    assert len(house.engine.asked) == 1
    await house.enter(query(3))
    assert len(house.engine.asked) == 2
    await house.enter(query(3), options=bulk)
    assert len(house.engine.asked) == 2
    await house.serve()
    assert house.quiet


async def test_who_is_refused_where_there_is_no_room_waits_for_nobody() -> None:
    """A call that may wait for room is shared by those that would wait as well."""
    waits = RequestOptions(on_full="wait")
    house = House()
    await house.enter(query(3), options=waits)
    await house.enter(query(3), options=waits)
    assert len(house.engine.asked) == 1
    await house.enter(query(3))
    assert len(house.engine.asked) == 2
    await house.serve()
    assert house.quiet


async def test_many_queries_are_gone_through_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large request is answered like any other, and none of its queries is touched on the loop:
    neither when it is asked nor when its answers are kept."""
    house = House(cache_bytes=1 << 26)
    queries = [query(n, n + 1) for n in range(QUERIES_ON_LOOP + 5)]
    threads: list[int] = []
    for name in ("get_all", "put_all"):
        work = getattr(ScoreCache, name)

        def noted(*arguments: Any, work: Callable[..., Any] = work) -> Any:
            threads.append(threading.get_ident())
            return work(*arguments)

        monkeypatch.setattr(ScoreCache, name, noted)
    outcomes = []
    for _ in range(2):
        task = asyncio.create_task(house.scores.score(queries, OPTIONS))
        async with asyncio.timeout(10):
            while not task.done():
                await house.serve()
                await asyncio.sleep(0.001)
        outcomes.append(await task)
    assert outcomes[0].value == outcomes[1].value == tuple(map(answer_to, queries))
    assert [outcome.reused_scores for outcome in outcomes] == [0, len(queries)]
    assert len(house.engine.asked) == 1
    assert len(threads) == 3
    assert threading.get_ident() not in threads


async def test_large_requests_at_a_time_are_asked_once() -> None:
    """Of calls that are known as a whole, too, only what nobody asks is asked."""
    house = House()
    queries = [query(n, n + 1) for n in range(2 * MAX_LISTED_QUERIES)]
    calls = [queries, queries, [*queries[MAX_LISTED_QUERIES // 2 :], query(7)]]
    tasks = [asyncio.create_task(house.scores.score(call, OPTIONS)) for call in calls[:1]]
    async with asyncio.timeout(30):
        while not house.engine.waiting:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(house.scores.score(call, OPTIONS)) for call in calls[1:]]
        while len(house.engine.waiting) < 2 or house.scores.inflight_queries < len(queries) + 1:
            await asyncio.sleep(0.001)
        while not all(task.done() for task in tasks):
            await house.serve()
            await asyncio.sleep(0.001)
    for call, task in zip(calls, tasks, strict=True):
        assert (await task).value == tuple(map(answer_to, call))
    assert house.engine.asked == [tuple(queries), (query(7),)]
    assert [(await task).reused_scores for task in tasks] == [
        0,
        len(queries),
        len(queries) - MAX_LISTED_QUERIES // 2,
    ]
    assert house.quiet


class Visitor:
    """One request of the property test: what it wants, when it comes, and when it leaves."""

    def __init__(self, wants: list[int], arrives: int, leaves: int | None, salt: str) -> None:
        self.queries = [query(n) for n in wants]
        self.arrives = arrives
        self.leaves = leaves
        self.options = RequestOptions(cache_salt=salt)


visitors = st.builds(
    Visitor,
    st.lists(st.sampled_from((2, 3, 4, 5, BAD)), min_size=1, max_size=4),
    st.integers(0, 12),
    st.none() | st.integers(0, 25),
    st.sampled_from(("", "", "a")),
)


@settings(max_examples=250, deadline=None)
@given(
    st.lists(visitors, min_size=1, max_size=7),
    st.lists(st.sampled_from(("wait", "answer", "fail")), max_size=30),
    st.sampled_from((0, 1_500, 1 << 20)),
    st.sampled_from((2, 5, 1_000)),
)
def test_whoever_stays_is_answered_and_nothing_is_left(
    guests: list[Visitor], doings: list[str], cache_bytes: int, room: int
) -> None:
    """Requests that come, leave at any await, are refused or fail: no place, no key, no waiter
    remains, and whoever stays gets its own answers or an error that the engine raised for it."""
    asyncio.run(_visit(guests, doings, House(cache_bytes, room)))


async def _visit(guests: list[Visitor], doings: list[str], house: House) -> None:
    tasks: dict[Visitor, asyncio.Task[RequestOutput[tuple[QueryResult, ...]]]] = {}
    for tick in range(40):
        for guest in guests:
            if guest.arrives == tick:
                call = house.scores.score(guest.queries, guest.options)
                tasks[guest] = asyncio.create_task(call)
            if guest.leaves == tick and guest in tasks:
                tasks[guest].cancel()
        doing = doings[tick] if tick < len(doings) else "wait"
        ready = [gate for gate in house.engine.waiting if not gate.done()]
        if doing != "wait" and ready:
            if doing == "answer":
                ready[0].set_result(None)
            else:
                ready[0].set_exception(ForwardFailed("broken"))
        await asyncio.sleep(0)
    await house.serve()
    for guest, task in tasks.items():
        assert task.done()
        _check(guest, task)
    await settle()
    assert house.quiet


def _check(guest: Visitor, task: asyncio.Task[RequestOutput[tuple[QueryResult, ...]]]) -> None:
    if task.cancelled():
        assert guest.leaves is not None
        return
    if (error := task.exception()) is not None:
        assert isinstance(error, EngineOverloaded | ForwardFailed)
        return
    for asked, found in zip(guest.queries, task.result().value, strict=True):
        expected = answer_to(asked)
        assert found == expected or (isinstance(found, InvalidQuery) and BAD in asked.tokens)


async def test_a_real_engine_computes_identical_requests_once(tiny_folder: TinyFolder) -> None:
    """Shared answers are the engine's own to the bit; leaving frees its queue."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=1 << 20)
    engine = await asyncio.to_thread(Engine.load, config)
    await engine.start()
    try:
        scores = CachedScorer(
            engine.score, engine.info.fingerprint, ScoreCache(1 << 20), WorkerThreads(2)
        )
        queries = [LogprobQuery((1, 2, 3, last), 2, (), top_k=2) for last in range(4)]
        plain = await engine.score(queries, RequestOptions(cache_salt="other"))
        requests = [asyncio.create_task(scores.score(queries, OPTIONS)) for _ in range(3)]
        first, *others = await asyncio.gather(*requests)
        assert first.value == plain.value
        assert [other.value for other in others] == [plain.value] * 2
        assert [other.computed_tokens for other in others] == [0, 0]
        kept = await scores.score(queries, OPTIONS)
        assert (kept.value, kept.reused_scores, kept.model_s) == (plain.value, 4, 0.0)
        leaver = asyncio.create_task(scores.score([LogprobQuery((4,) * 40, 1)], OPTIONS))
        await asyncio.sleep(0)
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        await settle()
        assert engine.stats().queued_requests == engine.stats().queued_tokens == 0
    finally:
        await engine.stop(5)


async def test_the_time_runs_while_all_threads_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the last answer, too: it is not put together for who has no time left."""
    house = House(cache_bytes=1 << 26)
    threads = WorkerThreads(2)
    scores = CachedScorer(house.engine.score, "f", house.cache, threads)
    queries = [query(n, n + 1) for n in range(QUERIES_ON_LOOP + 5)]
    filling = asyncio.create_task(scores.score(queries, OPTIONS))
    while not filling.done():
        await house.serve()
        await asyncio.sleep(0.001)
    gate, entered = threading.Event(), threading.Event()
    blocked: list[Any] = []
    loop = asyncio.get_running_loop()
    get_all = ScoreCache.get_all

    def block() -> None:
        entered.set()
        gate.wait(30)

    def take_both(self: ScoreCache, wanted: Any) -> Any:
        """The other thread now, and this one once it is free."""
        for _ in range(2):
            work = threads.run(Priority.INTERACTIVE, block)
            blocked.append(asyncio.run_coroutine_threadsafe(work, loop))
        assert entered.wait(30)
        time.sleep(0.1)
        return get_all(self, wanted)

    monkeypatch.setattr(ScoreCache, "get_all", take_both)
    began = time.monotonic()
    try:
        with pytest.raises(DeadlineExceeded):
            await scores.score(queries, RequestOptions(deadline=began + 1.0))
        assert time.monotonic() - began < 10
    finally:
        gate.set()
        await asyncio.gather(*map(asyncio.wrap_future, blocked))
