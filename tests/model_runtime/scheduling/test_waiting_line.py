"""Requests that wait for room: their order, their bounds, and what ends the wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.errors import DeadlineExceeded, EngineOverloaded, EngineStopping, RequestTooLarge
from model_runtime.scheduling import waiting_line
from model_runtime.scheduling.admission import Admission, Throughput
from model_runtime.types import Priority, RequestOptions
from tests.model_runtime.on_loop import on_loop

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
WAITS = RequestOptions(on_full="wait")
ROOM = 100
SPEED = 10.0
"""Tokens a second, so that a full queue expects room in ten seconds."""


class Queue:
    """An admission, and the requests that want to get in, by the order of their arrival."""

    def __init__(self) -> None:
        throughput = Throughput()
        throughput.tokens_per_s = SPEED
        self.is_open = True
        self.admission = Admission(ROOM, throughput, self._check_open)
        self.admitted: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []

    def _check_open(self) -> None:
        if not self.is_open:
            raise EngineStopping("the engine is stopping")

    async def arrive(self, cost: int, options: RequestOptions = WAITS) -> asyncio.Task[None]:
        """A request that is tokenized; it has a place when this returns."""
        name = len(self.tasks)

        async def enter() -> None:
            await self.admission.enter(cost, options)
            self.admitted.append(name)

        return await self._begin(enter())

    async def tokenize(self, gate: asyncio.Event, cost: int = 1) -> asyncio.Task[None]:
        """A request that is tokenized while the gate is shut, and then wants to be admitted."""
        name = len(self.tasks)

        async def enter() -> None:
            async with self.admission.reserve(1, WAITS):
                await gate.wait()
            await self.admission.enter(cost, WAITS)
            self.admitted.append(name)

        return await self._begin(enter())

    async def _begin(self, coroutine: object) -> asyncio.Task[None]:
        self.tasks.append(asyncio.ensure_future(coroutine))  # type: ignore[call-overload]
        await settle()
        return self.tasks[-1]


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(100):
        await asyncio.sleep(0)


def within(seconds: float, **options: str) -> RequestOptions:
    """A request that waits so long at most."""
    return RequestOptions(deadline=time.monotonic() + seconds, on_full="wait", **options)  # type: ignore[arg-type]


@on_loop
async def test_who_waits_is_admitted_in_order_of_arrival() -> None:
    """Nobody overtakes, whoever would fit, and each is admitted as soon as its cost fits."""
    queue = Queue()
    queue.admission.admit(ROOM, INTERACTIVE)
    for cost in (60, 10, 50):
        await queue.arrive(cost)
    assert queue.admitted == []
    queue.admission.free(50, INTERACTIVE)
    await settle()
    assert queue.admitted == []
    queue.admission.free(10, INTERACTIVE)
    await settle()
    assert queue.admitted == [0]
    queue.admission.free(40, INTERACTIVE)
    await settle()
    assert queue.admitted == [0, 1]
    queue.admission.free(60, INTERACTIVE)
    await settle()
    assert queue.admitted == [0, 1, 2]


EVENTS = st.one_of(
    st.tuples(st.just("arrives"), st.integers(1, ROOM)),
    st.tuples(st.just("is refused"), st.integers(1, ROOM)),
    st.tuples(st.just("leaves"), st.integers(0, 30)),
    st.tuples(st.just("finishes"), st.integers(0, 30)),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(EVENTS, max_size=30))
def test_the_line_is_first_in_first_out(events: list[tuple[str, int]]) -> None:
    """Whoever comes, leaves or finishes: who is in and who waits is what a list would say."""
    asyncio.run(_compared(events))


class Reference:
    """What a list says of the same events: who is in, and who waits, each with its cost."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int]] = []
        self.inside: dict[int, int] = {}

    def arrives(self, name: int, cost: int, *, waits: bool) -> None:
        if waits:
            self.waiting.append((name, cost))
        elif sum(self.inside.values()) + cost <= ROOM:
            self.inside[name] = cost

    def let_in(self) -> None:
        while self.waiting and sum(self.inside.values()) + self.waiting[0][1] <= ROOM:
            name, cost = self.waiting.pop(0)
            self.inside[name] = cost


async def _compared(events: list[tuple[str, int]]) -> None:
    queue, reference = Queue(), Reference()
    for event, number in events:
        if event in ("arrives", "is refused"):
            waits = event == "arrives"
            reference.arrives(len(queue.tasks), number, waits=waits)
            await queue.arrive(number, WAITS if waits else RequestOptions())
        elif event == "leaves" and reference.waiting:
            name, _ = reference.waiting.pop(number % len(reference.waiting))
            queue.tasks[name].cancel()
        elif event == "finishes" and reference.inside:
            name = sorted(reference.inside)[number % len(reference.inside)]
            queue.admission.free(reference.inside.pop(name), INTERACTIVE)
        reference.let_in()
        await settle()
        waiting = [name for name, task in enumerate(queue.tasks) if not task.done()]
        assert waiting == [name for name, _ in reference.waiting]
        assert queue.admission.queued_tokens == sum(reference.inside.values())
    for name, _ in reference.waiting:
        queue.tasks[name].cancel()
    ends = await asyncio.gather(*queue.tasks, return_exceptions=True)
    assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError, EngineOverloaded}


@on_loop
async def test_each_class_has_its_own_line() -> None:
    """Interactive work finds room where bulk work has none, though bulk work waits."""
    queue = Queue()
    queue.admission.admit(75, BULK)
    bulk = await queue.arrive(1, RequestOptions(BULK, on_full="wait"))
    await queue.arrive(25)
    assert queue.admitted == [1]
    queue.admission.free(75, BULK)
    await bulk


@on_loop
async def test_who_does_not_wait_is_refused_at_once() -> None:
    """Whoever waits beside it; and it may take what is too small for the first in line."""
    queue = Queue()
    queue.admission.admit(90, INTERACTIVE)
    await queue.arrive(20)
    with pytest.raises(EngineOverloaded):
        await queue.admission.enter(20, RequestOptions())
    await queue.admission.enter(10, RequestOptions())
    with pytest.raises(EngineOverloaded):
        async with queue.admission.reserve(1, RequestOptions()):
            pass


@on_loop
async def test_what_never_fits_does_not_wait() -> None:
    """It is too large at once, behind others as well."""
    queue = Queue()
    queue.admission.admit(ROOM, INTERACTIVE)
    await queue.arrive(1)
    with pytest.raises(RequestTooLarge):
        await queue.admission.enter(ROOM + 1, WAITS)


@on_loop
async def test_what_is_tokenized_goes_before_what_is_not() -> None:
    """Of those that wait as text one at a time is tokenized, and only while no other waits."""
    queue, gate = Queue(), asyncio.Event()
    for half in (ROOM // 2, ROOM // 2):
        queue.admission.admit(half, INTERACTIVE)
    for _ in range(3):
        await queue.tokenize(gate, cost=20)
    assert queue.admission.queued_tokens == ROOM
    queue.admission.free(10, INTERACTIVE)
    await settle()
    assert queue.admission.queued_tokens == ROOM - 10 + 1
    gate.set()
    await settle()
    gate.clear()
    assert (queue.admitted, queue.admission.queued_tokens) == ([], ROOM - 10)
    late = await queue.tokenize(gate, cost=1)
    assert queue.admission.queued_tokens == ROOM - 10
    gate.set()
    for admitted in ([0], [0, 1], [0, 1, 2], [0, 1, 2, 3]):
        queue.admission.free(20, INTERACTIVE)
        await settle()
        assert queue.admitted[: len(admitted)] == admitted
    await late


@on_loop
async def test_without_a_line_many_are_tokenized_at_a_time() -> None:
    """While there is room nobody who may wait holds up another."""
    queue, gate = Queue(), asyncio.Event()
    for _ in range(3):
        await queue.tokenize(gate)
    assert queue.admission.queued_tokens == 3
    gate.set()
    await asyncio.gather(*queue.tasks)
    assert queue.admission.queued_tokens == 3


@on_loop
async def test_where_the_queue_does_not_matter_only_tokenizing_is_waited_for() -> None:
    """What may be answered without the model is tokenized though the queue is full."""
    queue = Queue()
    queue.admission.admit(ROOM, INTERACTIVE)
    async with queue.admission.reserve(5, WAITS, check_room=False):
        assert queue.admission.queued_tokens == ROOM + 5


@pytest.mark.parametrize("place", [0, 1])
@on_loop
async def test_whoever_leaves_makes_way(place: int) -> None:
    """A request that goes while it waits, first or not, as text or not, keeps nobody out."""
    queue, gate = Queue(), asyncio.Event()
    queue.admission.admit(50, INTERACTIVE)
    tokenized = [await queue.arrive(ROOM), await queue.arrive(ROOM)]
    untokenized = [await queue.tokenize(gate), await queue.tokenize(gate)]
    assert queue.admission.queued_tokens == 50
    for task in tokenized:
        task.cancel()
    await settle()
    assert queue.admission.queued_tokens == 51
    untokenized[place].cancel()
    gate.set()
    await untokenized[1 - place]
    assert queue.admission.queued_tokens == 51


@pytest.fixture
def short_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two may wait, of ten tokens."""
    monkeypatch.setattr(waiting_line, "MAX_WAITING", 2)
    monkeypatch.setattr(waiting_line, "MAX_WAITING_TOKENS", 10)
    yield


@pytest.mark.usefixtures("short_line")
@on_loop
async def test_a_line_has_an_end() -> None:
    """Beyond so many requests, tokenized or not, the next one is refused and told when to come."""
    queue = Queue()
    queue.admission.admit(ROOM, INTERACTIVE)
    await queue.arrive(1)
    await queue.tokenize(asyncio.Event())
    with pytest.raises(EngineOverloaded, match="2 requests wait") as refusal:
        async with queue.admission.reserve(1, WAITS):
            pass
    assert refusal.value.retry_after_s == pytest.approx(1 / SPEED)
    queue.tasks[1].cancel()
    await settle()
    assert not (await queue.tokenize(asyncio.Event())).done()


@pytest.mark.usefixtures("short_line")
@on_loop
async def test_a_line_holds_so_many_tokens() -> None:
    """One request alone may be of any size."""
    queue = Queue()
    queue.admission.admit(ROOM, INTERACTIVE)
    await queue.arrive(50)
    with pytest.raises(EngineOverloaded, match="1 requests wait"):
        await queue.admission.enter(1, WAITS)


@pytest.mark.usefixtures("short_line")
@on_loop
async def test_the_parts_of_a_request_count_as_one() -> None:
    """However many of them wait, and whatever they hold together."""
    queue, part = Queue(), RequestOptions(on_full="wait", parent="p")
    queue.admission.admit(ROOM, INTERACTIVE)
    for _ in range(5):
        await queue.arrive(5, part)
    with pytest.raises(EngineOverloaded, match="1 requests wait"):
        await queue.admission.enter(1, WAITS)
    queue.admission.free(ROOM, INTERACTIVE)
    await settle()
    assert queue.admitted == list(range(5))


@pytest.mark.parametrize("tokenized", [True, False])
@on_loop
async def test_the_deadline_passes_in_line(tokenized: bool) -> None:
    """The request's time is over, and nothing of it is left."""
    queue = Queue()
    queue.admission.admit(ROOM, INTERACTIVE)
    await queue.arrive(ROOM)
    with pytest.raises(DeadlineExceeded):
        if tokenized:
            await queue.admission.enter(1, within(0.01))
        else:
            async with queue.admission.reserve(1, within(0.01)):
                pass
    queue.admission.free(ROOM, INTERACTIVE)
    await settle()
    assert (queue.admitted, queue.admission.queued_tokens) == ([0], ROOM)


@on_loop
async def test_who_has_no_time_to_wait_is_refused_at_once() -> None:
    """It would be the first, and there is no room expected before its time ends."""
    queue = Queue()
    queue.admission.admit(ROOM, INTERACTIVE)
    with pytest.raises(EngineOverloaded) as refusal:
        await queue.admission.enter(ROOM, within(0.9))
    assert refusal.value.retry_after_s == pytest.approx(ROOM / SPEED)
    assert not (await queue.arrive(ROOM, within(1.5))).done()


@pytest.mark.parametrize("seconds", [None, 60.0])
@on_loop
async def test_nobody_waits_for_ever(seconds: float | None) -> None:
    """Where the request's own time is not over, it is the server that had no room."""
    queue = Queue()
    queue.admission.admit(ROOM, INTERACTIVE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting_line, "MAX_WAIT_S", 0.01)
        with pytest.raises(EngineOverloaded, match="no room") as refusal:
            await queue.admission.enter(30, WAITS if seconds is None else within(seconds))
    assert refusal.value.retry_after_s == pytest.approx(30 / SPEED)


@on_loop
async def test_who_waits_hears_that_no_work_is_taken() -> None:
    """At once, though nothing that was admitted has ended."""
    queue = Queue()
    queue.admission.admit(ROOM, INTERACTIVE)
    tasks = [await queue.arrive(1), await queue.arrive(1), await queue.tokenize(asyncio.Event())]
    queue.is_open = False
    queue.admission.wake()
    for task in tasks:
        with pytest.raises(EngineStopping):
            await task
    assert queue.admission.queued_tokens == ROOM
