"""Worker threads: how many there are, who may take them, and how soon abandoned work ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import service as service_module
from app.requests.worker_threads import WorkerThreads
from app.schemas.decode import DecodeRequest
from app.schemas.next_token import NextTokenRequest
from app.schemas.request import ServingOptions
from app.schemas.score import ScoreRequest
from app.scoring.token_paths import PathQueries
from app.service import ScoringService
from model_runtime import (
    DeadlineExceeded,
    EngineOverloaded,
    ForwardFailed,
    InvalidQuery,
    LogprobQuery,
    Priority,
)
from model_runtime.scheduling.admission import Admission, Throughput
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import QUEUE_TOKENS, FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio

LIMIT = 2

GONE: dict[str, Any] = {"context": "gone", "priority": "bulk"}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/score", {"context": "it is", "candidates": [" yes"]}),
    ("/v1/score", {"context": "it is", "candidates": [" yes"], "boundary": "marginal"}),
    ("/v1/next_token", {"context": "it is"}),
    ("/v1/decode", {"context": "it is"}),
    ("/v1/rerank", {"query": "it", "documents": ["is"]}),
    ("/score", {"text_1": "it", "text_2": ["is"]}),
    ("/v1/audit", {"context": "it is", "candidates": [" yes"]}),
]
"""A small request of each kind."""


class HeldTokenizer(ToyTokenizer):
    """Holds every thread that tokenizes until it is let go.

    Attributes:
        held: threads that are in it.
        most: so many were at once.
        texts: that were tokenized.
        seen: all of these.
        held_only: only texts with this in them are held.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = self.most = self.texts = 0
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self._lock = threading.Lock()
        self.held_only = ""
        self.seen: set[str] = set()

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        if self.held_only in text:
            self._hold()
        self.texts += 1
        self.seen.add(text)
        return super().encode(text, parse_special=parse_special)

    async def is_entered(self) -> None:
        """Return once one more thread is in it."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)

    def _hold(self) -> None:
        with self._lock:
            self.held += 1
            self.most = max(self.most, self.held)
        self.entered.release()
        try:
            if not self.gate.wait(30):
                raise TimeoutError("the test forgot to let go")
        finally:
            with self._lock:
                self.held -= 1


@pytest.fixture
async def tokenizer(anyio_backend: str) -> AsyncIterator[HeldTokenizer]:
    """One that is let go in the end."""
    tokenizer = HeldTokenizer()
    yield tokenizer
    tokenizer.gate.set()


@pytest.fixture
def engine(tokenizer: HeldTokenizer) -> FakeEngine:
    """One with a queue."""
    return FakeEngine(tokenizer=tokenizer)


@pytest.fixture
def service(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> ScoringService:
    """Tokenizes on two threads."""
    monkeypatch.setattr("os.cpu_count", lambda: LIMIT)
    return ScoringService(engine)  # type: ignore[arg-type]


def question(**body: Any) -> NextTokenRequest:
    """One that has to be tokenized."""
    return NextTokenRequest.model_validate({"context": "a", **body})


async def is_idle(service: ScoringService) -> None:
    """Return once no thread works any more."""
    async with asyncio.timeout(30):
        while service.has_abandoned_threads:
            await asyncio.sleep(0.001)


async def test_a_thread_is_taken_until_its_work_ends(
    service: ScoringService, tokenizer: HeldTokenizer
) -> None:
    """However many requests run out of time, no more threads run than there are."""
    patient = [asyncio.create_task(service.next_token(question())) for _ in range(LIMIT)]
    for _ in range(LIMIT):
        await tokenizer.is_entered()
    for task in patient:
        task.cancel()
    for _ in range(6):
        with pytest.raises(DeadlineExceeded):
            await service.next_token(question(timeout_ms=5))
    later = asyncio.create_task(service.next_token(question()))
    await asyncio.sleep(0)
    assert all(task.cancelled() for task in patient)
    tokenizer.gate.set()
    assert (await later).tokens
    assert tokenizer.most == LIMIT


async def test_timeouts_free_no_thread(service: ScoringService, tokenizer: HeldTokenizer) -> None:
    """A request whose time is over is answered at once, and its thread is not given away."""
    for _ in range(6):
        with pytest.raises(DeadlineExceeded):
            await service.next_token(question(timeout_ms=50))
    await tokenizer.is_entered()
    tokenizer.gate.set()
    assert (await service.next_token(question())).tokens
    assert tokenizer.most <= LIMIT


@pytest.mark.parametrize(
    "policy",
    [
        {"boundary": "joint"},
        {"boundary": "separate"},
        {"boundary": "marginal", "max_expansions": 8},
    ],
    ids=["joint", "separate", "marginal"],
)
async def test_abandoned_work_ends_soon(
    service: ScoringService, tokenizer: HeldTokenizer, policy: dict[str, Any]
) -> None:
    """Of a large request that nobody waits for any more the rest is not tokenized."""
    candidates = [f"{n}" for n in range(4_000)]
    request = ScoreRequest.model_validate({"context": "it is", "candidates": candidates, **policy})
    large = asyncio.create_task(service.score(request))
    await tokenizer.is_entered()
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    tokenizer.gate.set()
    assert (await service.next_token(question())).tokens
    assert tokenizer.texts < 100


@pytest.mark.parametrize("cores", [None, 1, 2, 64])
async def test_bulk_work_leaves_a_thread(
    engine: FakeEngine,
    tokenizer: HeldTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    cores: int | None,
) -> None:
    """However much bulk work is tokenized, an interactive request is planned at once."""
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    service = ScoringService(engine)  # type: ignore[arg-type]
    tokenizer.held_only = "large"
    most = service_module.MAX_THREADS if cores == 64 else LIMIT
    large = ScoreRequest(
        context="large", candidates=[" x"] * 2_000, boundary="joint", priority="bulk"
    )
    tasks = [asyncio.create_task(service.score(large)) for _ in range(8)]
    for _ in range(most - 1):
        await tokenizer.is_entered()
    for _ in range(3):
        assert (await service.next_token(question())).tokens
    assert tokenizer.held == tokenizer.most == most - 1
    assert service.has_abandoned_threads
    tokenizer.gate.set()
    answers = await asyncio.gather(*tasks)
    assert [len(answer.results) for answer in answers] == [2_000] * 8


async def test_long_work_leaves_a_thread(
    service: ScoringService, tokenizer: HeldTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interactive request that tokenizes for seconds keeps no short one waiting."""
    monkeypatch.setattr("app.requests.token_estimate.LONG_CHARACTERS", 1_000)
    tokenizer.held_only = "large"
    large = ScoreRequest(context="large", candidates=[" x"] * 2_000, boundary="joint")
    tasks = [asyncio.create_task(service.score(large)) for _ in range(4)]
    await tokenizer.is_entered()
    for _ in range(3):
        assert (await service.next_token(question())).tokens
    assert tokenizer.held == tokenizer.most == LIMIT - 1
    tokenizer.gate.set()
    answers = await asyncio.gather(*tasks)
    assert [len(answer.results) for answer in answers] == [2_000] * 4


async def test_bulk_work_keeps_no_long_interactive_work_out() -> None:
    """Which waits for what runs, and for one that is in line before it at most."""
    threads = WorkerThreads(2)
    gate = threading.Event()
    order: list[str] = []
    bulk = [asyncio.create_task(threads.run(Priority.BULK, gate.wait, 30))]
    await asyncio.sleep(0.01)
    for n in range(5):
        bulk.append(asyncio.create_task(threads.run(Priority.BULK, order.append, f"bulk {n}")))
    await asyncio.sleep(0.01)
    long = threads.run(Priority.INTERACTIVE, order.append, "long", takes_long=True)
    task = asyncio.create_task(long)
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(task, *bulk)
    assert order.index("long") <= 1
    assert len(order) == 6


async def test_bulk_work_that_leaves_its_turn_makes_way(
    service: ScoringService, engine: FakeEngine, tokenizer: HeldTokenizer
) -> None:
    """Who waits for bulk work's thread and goes takes no thread, and the next one has its turn."""
    first = asyncio.create_task(service.next_token(question(priority="bulk")))
    await tokenizer.is_entered()
    gone = [asyncio.create_task(service.next_token(question(**GONE))) for _ in range(3)]
    with pytest.raises(DeadlineExceeded):
        await service.next_token(question(**GONE, timeout_ms=20))
    for task in (first, *gone):
        task.cancel()
    last = asyncio.create_task(service.next_token(question(priority="bulk")))
    await asyncio.sleep(0.01)
    assert tokenizer.held == 1
    tokenizer.gate.set()
    assert (await last).tokens
    assert "gone" not in tokenizer.seen
    assert tokenizer.most == 1
    assert engine.admission.queued_tokens == 0
    await is_idle(service)


async def test_a_full_queue_refuses_though_all_threads_are_taken(
    engine: FakeEngine, tokenizer: HeldTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 with Retry-After, on every route that asks the model, without waiting for a thread."""
    monkeypatch.setattr("os.cpu_count", lambda: LIMIT)
    async with client_of(shell_app(engine)) as client:
        tasks = [
            asyncio.create_task(client.post("/v1/next_token", json={"context": "a"}))
            for _ in range(LIMIT)
        ]
        for _ in range(LIMIT):
            await tokenizer.is_entered()
        engine.admission.admit(QUEUE_TOKENS, Priority.INTERACTIVE)
        for path, body in REFUSED:
            async with asyncio.timeout(5):
                response = await client.post(path, json={**body, "timeout_ms": 60_000})
            assert response.status_code == 429, path
            assert int(response.headers["Retry-After"]) >= 1
        engine.admission.free(QUEUE_TOKENS, Priority.INTERACTIVE)
        assert tokenizer.texts == 0
        tokenizer.gate.set()
        assert [(await task).status_code for task in tasks] == [200] * LIMIT
    assert engine.admission.queued_tokens == 0


async def test_whoever_waits_for_a_thread_counts(
    service: ScoringService, engine: FakeEngine, tokenizer: HeldTokenizer
) -> None:
    """No line grows before the threads: beyond the queue's bound the next one is refused."""
    engine.admission = Admission(10, Throughput(), max_untokenized=10)
    waiting = [asyncio.create_task(service.next_token(question())) for _ in range(10)]
    await asyncio.sleep(0)
    with pytest.raises(EngineOverloaded):
        await service.next_token(question())
    tokenizer.gate.set()
    assert all([(await task).tokens for task in waiting])
    assert (await service.next_token(question())).tokens
    assert engine.admission.queued_tokens == 0


ENDS = ("answered", "cancelled", "late", "refused by the plan", "failed by the engine")


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(ENDS),
            st.sampled_from(["next_token", "score", "decode", "stream", "paths"]),
            st.sampled_from(["interactive", "bulk"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_all_that_was_held_is_given_back(requests: list[tuple[str, str, str]]) -> None:
    """However each request ends, nothing of it is left in the queue, and no thread is missing."""
    asyncio.run(_all_end(requests))


async def _all_end(requests: list[tuple[str, str, str]]) -> None:
    tokenizer = HeldTokenizer()
    engine = FakeEngine(tokenizer=tokenizer, failures={"c": ForwardFailed("at this input")})
    service: Any = ScoringService(engine)  # type: ignore[arg-type]
    tasks = [
        (end, asyncio.create_task(_ask(service, end, verb, priority)))
        for end, verb, priority in requests
    ]
    await asyncio.sleep(0.02)
    for end, task in tasks:
        if end == "cancelled":
            task.cancel()
    tokenizer.gate.set()
    ends = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
    for (end, _), found in zip(tasks, ends, strict=True):
        assert isinstance(found, FAILURES.get(end, object)), (end, found)
    assert engine.admission.queued_tokens == 0
    for priority in ("interactive", "bulk"):
        assert (await service.next_token(question(priority=priority))).tokens
    await is_idle(service)


FAILURES: dict[str, type[BaseException]] = {
    "cancelled": asyncio.CancelledError,
    "late": DeadlineExceeded,
    "refused by the plan": InvalidQuery,
}


async def _ask(service: Any, end: str, verb: str, priority: str) -> object:
    """One request that ends so; each text is its own, so that nothing is shared."""
    context: Any = {"refused by the plan": [10**6], "failed by the engine": "abc"}.get(end, "a")
    body: dict[str, Any] = {"context": context, "priority": priority}
    if end == "late":
        body["timeout_ms"] = 1
    if verb == "next_token":
        return await service.next_token(question(**body))
    if verb == "score":
        return await service.score(ScoreRequest(candidates=["b"], **body))
    if verb == "decode":
        return await service.decode(DecodeRequest(max_tokens=1, **body))
    if verb == "stream":
        request = DecodeRequest(max_tokens=1, stream=True, **body)
        return [event async for event in service.stream(request)]

    def plan(tokenizer: Any, info: Any) -> PathQueries[None]:
        if end == "refused by the plan":
            raise InvalidQuery("not so")
        path = tuple(tokenizer.encode(context))
        return PathQueries([LogprobQuery(path, len(path), (1,))], None, len(path), 1)

    del body["context"]
    return await service.score_paths(ServingOptions(**body), plan)
