"""A card with too little memory: batches are halved, and every answer is still right."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from model_runtime import Engine, EngineConfig, LogprobQuery, LogprobResult
from tests.gpu.on_card import random_path
from tests.tiny_models import save_tiny_model

pytestmark = pytest.mark.gpu

MLP = 16_384
"""Values of the MLP's width for each token: 4,000 tokens take about 1.3 GB at once."""

ROOM = 400 << 20
"""Bytes above what the model and its cache take."""

QUERIES, LENGTH = 13, 300


@contextmanager
def room_for(bytes_more: int) -> Iterator[None]:
    """Let this process have so many bytes of the card more than it holds now."""
    torch.cuda.empty_cache()
    most = torch.cuda.memory_reserved() + bytes_more
    torch.cuda.set_per_process_memory_fraction(
        most / torch.cuda.get_device_properties(0).total_memory
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


async def score(
    engine: Engine, salt: str, paths: list[tuple[int, ...]]
) -> tuple[list[LogprobResult], int]:
    """The answers, and in how many batches they were computed."""
    before = engine.stats().batches
    outcome = await engine.score([LogprobQuery(path, 1, cache_salt=salt) for path in paths])
    results = [answer for answer in outcome.value if isinstance(answer, LogprobResult)]
    return results, engine.stats().batches - before


async def with_and_without_room(
    folder: Path,
) -> list[tuple[list[LogprobResult], int]]:
    """The same request with all memory, with little of it, and again with little of it."""
    rng = random.Random(0)
    paths = [random_path(rng, LENGTH) for _ in range(QUERIES)]
    config = EngineConfig(
        model=str(folder),
        device="cuda",
        dtype="float32",
        max_batch_tokens=QUERIES * LENGTH,
        kv_cache_bytes=32 << 20,
    )
    engine = Engine.load(config)
    await engine.start()
    try:
        runs = [await score(engine, "roomy", paths)]
        with room_for(ROOM):
            runs += [await score(engine, f"tight {i}", paths) for i in range(2)]
    finally:
        await engine.stop(10.0)
    return runs


def test_out_of_memory_halves_the_batch(tmp_path: Path) -> None:
    """The request is answered in more and smaller batches, with the same scores, twice."""
    folder = save_tiny_model("llama", tmp_path, intermediate_size=MLP)
    roomy, *tight = asyncio.run(with_and_without_room(folder))
    results, batches = roomy
    assert len(results) == QUERIES and batches == 1
    for again, in_batches in tight:
        assert in_batches > batches
        for one, other in zip(again, results, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
