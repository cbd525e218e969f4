"""Many texts to token ids: all of them, or none where nobody waits any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from app.requests.encoding import CHUNK_CHARS, CHUNK_TEXTS, encode_in_chunks
from app.requests.worker_threads import WorkerThreads
from model_runtime import Priority
from tests.app.fake_engine import ToyTokenizer


class CountingTokenizer(ToyTokenizer):
    """Counts its batches; each waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0
        self.entered = threading.Event()
        self.gate = threading.Event()

    def encode_batch(self, texts: Sequence[str], **settings: Any) -> list[list[int]]:
        self.batches += 1
        self.entered.set()
        assert self.gate.wait(30)
        return super().encode_batch(texts, **settings)


@pytest.mark.anyio
async def test_what_nobody_waits_for_is_left_early() -> None:
    """Of a batch whose request has left, the next part is not tokenized."""
    tokenizer: Any = CountingTokenizer()
    threads = WorkerThreads(2)
    texts = ["a"] * 5 * CHUNK_TEXTS
    waiting = asyncio.create_task(
        threads.run(Priority.INTERACTIVE, encode_in_chunks, tokenizer, texts)
    )
    assert await asyncio.to_thread(tokenizer.entered.wait, 30)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    tokenizer.gate.set()
    async with asyncio.timeout(30):
        while threads.busy:
            await asyncio.sleep(0.001)
    assert tokenizer.batches == 1


def test_the_parts_of_a_batch_are_all_of_it() -> None:
    """However many and however long the texts are, each has its own tokens, in order."""
    tokenizer: Any = CountingTokenizer()
    tokenizer.gate.set()
    texts = ["it is", "x" * (CHUNK_CHARS + 1), "", *["yes"] * CHUNK_TEXTS]
    assert encode_in_chunks(tokenizer, texts) == ToyTokenizer().encode_batch(texts)
    assert tokenizer.batches == 4
    assert encode_in_chunks(tokenizer, []) == []
