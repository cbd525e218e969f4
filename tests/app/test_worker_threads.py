"""Worker threads: how many there are, whoever leaves, and how soon abandoned work ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.schemas.next_token import NextTokenRequest
from app.schemas.score import ScoreRequest
from app.service import ScoringService
from model_runtime import DeadlineExceeded
from tests.app.fake_engine import FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio

LIMIT = 2


class HeldTokenizer(ToyTokenizer):
    """Holds every thread that tokenizes until it is let go.

    Attributes:
        held: threads that are in it.
        most: so many were at once.
        texts: that were tokenized.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = self.most = self.texts = 0
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self._lock = threading.Lock()

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        self._hold()
        self.texts += 1
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
def service(tokenizer: HeldTokenizer, monkeypatch: pytest.MonkeyPatch) -> ScoringService:
    """Tokenizes on two threads."""
    monkeypatch.setattr("os.cpu_count", lambda: LIMIT)
    return ScoringService(FakeEngine(tokenizer=tokenizer))  # type: ignore[arg-type]


def question(**body: Any) -> NextTokenRequest:
    """One that has to be tokenized."""
    return NextTokenRequest.model_validate({"context": "a", **body})


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
