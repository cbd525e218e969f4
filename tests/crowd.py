"""Requests through a real engine: each alone, then all at once, every answer in one ledger."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from model_runtime.batching.batch import Batch, BatchOutput
from model_runtime.config import EngineConfig
from model_runtime.decoding.hypothesis import DecodingResult
from model_runtime.engine import Engine
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.runner.native_runner import NativeModelRunner
from model_runtime.scheduling.engine_stats import EngineStats
from model_runtime.scheduling.scheduler import DEFAULT_OPTIONS
from model_runtime.types import (
    LogprobQuery,
    LogprobResult,
    Priority,
    QueryResult,
    RequestOptions,
)
from tests.ledger import Ledger
from tests.random_requests import (
    DecodeRequest,
    RandomRequests,
    Request,
    ScoreRequest,
    is_decode_step,
)

Fault = Callable[[Batch, BatchOutput], BatchOutput]

Dtype = Literal["float32", "bfloat16"]

ROOMY_BYTES = 64 << 20
POLL_S = 0.0005
LIMIT_S = 1200
"""Against hangs alone; a busy machine may take long."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How an engine is set up for a crowd.

    Attributes:
        max_batch_tokens: what chunks long paths.
        cache_tokens: about what the cache holds; a small one evicts; None for a roomy one.
        threads: torch's, as the engine sets them.
        rounds: how often the crowd comes; the later ones find a warm cache.
    """

    max_batch_tokens: int
    cache_tokens: int | None
    threads: int
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class SeenForward:
    """What a forward held, and how many threads the model thread had."""

    batch: Batch
    threads: int

    @property
    def steps(self) -> int:
        """Parts of it that are steps of searches."""
        return sum(is_decode_step(extent.query) for extent in self.batch.query_slices)

    @property
    def mixed(self) -> bool:
        """Steps of searches beside scoring."""
        return 0 < self.steps < len(self.batch.query_slices)

    def holds(self, query: LogprobQuery) -> bool:
        """Whether a part of the query is in it."""
        return any(extent.query == query for extent in self.batch.query_slices)

    def answers(self, path: tuple[int, ...]) -> bool:
        """Whether the row after ``path`` is in it."""
        return any(
            e.query.tokens[: len(path)] == path and len(path) in e.rows
            for e in self.batch.query_slices
        )

    def __str__(self) -> str:
        parts = ", ".join(
            f"{'step' if is_decode_step(e.query) else 'score'} {len(e.query.tokens)}"
            f"[{e.rows.start}:{e.rows.stop}]"
            for e in self.batch.query_slices
        )
        return f"{len(self.batch.token_ids)} tokens, {self.threads} threads: {parts}"


def watch_forwards(
    monkeypatch: pytest.MonkeyPatch, fault: Fault | None = None
) -> list[SeenForward]:
    """Note every forward of every runner from now on; ``fault`` may falsify what it says."""
    seen: list[SeenForward] = []

    def watch(kind: type[ModelRunner] | type[NativeModelRunner]) -> None:
        run: Callable[[Any, Batch], BatchOutput] = kind.run

        def watched(runner: Any, batch: Batch) -> BatchOutput:
            seen.append(SeenForward(batch, torch.get_num_threads()))
            output = run(runner, batch)
            return output if fault is None else fault(batch, output)

        monkeypatch.setattr(kind, "run", watched)

    watch(ModelRunner)
    watch(NativeModelRunner)
    return seen


def seed_of(config: pytest.Config) -> int:
    """0, or what ``--hypothesis-seed`` says on the command line."""
    given = config.getoption("--hypothesis-seed")
    return random.randrange(2**32) if given == "random" else int(given or 0)


@asynccontextmanager
async def started(engine: Engine) -> AsyncIterator[Engine]:
    """The engine, ready; stopped afterwards."""
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(drain_s=5)


async def ask(
    engine: Engine, request: Request, options: RequestOptions = DEFAULT_OPTIONS
) -> tuple[QueryResult, ...] | DecodingResult:
    """What the engine makes of a request."""
    if isinstance(request, DecodeRequest):
        return (await engine.decode(request.search(engine.info.vocab_size), options)).value
    return (await engine.score(request.queries, options)).value


class Crowd:
    """The requests of a seed, and what engines say of them.

    Args:
        folder: the model.
        seed: names the requests, their order and their arrivals.
        count: requests.
        dtype: of the products.
        longest: tokens of a path at most; None leaves it to the model.

    Attributes:
        ledger: every answer so far.
        requests: known once an engine has run; the completions of its searches are there too.
        batches, shared_batches, batch_requests: of the crowds, by the engines' own counters.
        batch_invariant: every engine so far said that a crowd changes no bit.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        count: int = 10,
        dtype: Dtype = "float32",
        longest: int | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.requests: list[Request] = []
        self.batches = self.shared_batches = self.batch_requests = 0
        self.batch_invariant = True
        self._folder = folder
        self.dtype: Dtype = dtype
        self.name = f"--hypothesis-seed={seed}, {dtype}"
        self._rng = random.Random(seed)
        self._count = count
        self._longest = longest
        self._bytes_per_token = 0

    def report(self, seen: Sequence[SeenForward], conflicts: int = 3) -> str:
        """The first conflicts, with the forwards that their rows were in."""
        lines = [f"{len(self.ledger.conflicts)} conflicts; reproduce with {self.name}"]
        for conflict in self.ledger.conflicts[:conflicts]:
            lines += [conflict.text, *(f"  {it}" for it in seen if it.answers(conflict.path))]
        return "\n".join(lines)

    def run(self, *mixes: Mix) -> None:
        """Ask each request alone, then all of them together in each mix.

        The first mix must leave ``cache_tokens`` open: it shows how many bytes a token takes.
        """
        asyncio.run(asyncio.wait_for(self._run(mixes), LIMIT_S))

    async def _run(self, mixes: Sequence[Mix]) -> None:
        for number, mix in enumerate(mixes):
            async with started(Engine.load(self._config(mix))) as engine:
                if not self.requests:
                    self._meet(engine)
                    await self._ask_alone(engine)
                self.batch_invariant &= engine.info.batch_invariant
                before = engine.stats()
                for crowd in range(mix.rounds):
                    await self._ask_together(engine, f"mix {number}, crowd {crowd}")
                self._count_batches(before, engine.stats())

    def _config(self, mix: Mix) -> EngineConfig:
        size = ROOMY_BYTES
        if mix.cache_tokens is not None:
            size = mix.cache_tokens * self._bytes_per_token
        return EngineConfig(
            model=str(self._folder),
            dtype=self.dtype,
            max_model_len=self._longest,
            threads=mix.threads,
            max_batch_tokens=mix.max_batch_tokens,
            kv_cache_bytes=size,
        )

    def _meet(self, engine: Engine) -> None:
        self._bytes_per_token = ROOMY_BYTES // engine.stats().cache_slots
        info = engine.info
        self._random = RandomRequests(self._rng, info.vocab_size, info.max_model_len)
        self.requests = self._random.take(self._count)

    async def _ask_alone(self, engine: Engine) -> None:
        """Every query and every search by itself, in a part of the cache where nothing is."""
        for number, request in enumerate(self.requests):  # it grows on the way
            for part, single in enumerate(_singles(request)):
                options = RequestOptions(cache_salt=f"alone {number}.{part}")
                answer = await ask(engine, single, options)
                self._enter(single, answer, "alone")
                if isinstance(answer, DecodingResult):
                    self.requests.append(_retold(single, answer))

    async def _ask_together(self, engine: Engine, source: str) -> None:
        """Most requests and a few strangers, in any order, class and part of the cache.

        Some come at once, some a few forwards later, so that searches are under way when
        others arrive; the last stranger leaves before it is answered.
        """
        rng = self._rng
        known = rng.sample(self.requests, len(self.requests) * 5 // 6)
        guests = [*known, *self._random.take(2)]
        tasks: list[asyncio.Task[None]] = []
        for guest in rng.sample(guests, len(guests)):
            options = RequestOptions(
                rng.choice(list(Priority)), cache_salt=rng.choice(("", "", "tenant"))
            )
            tasks.append(asyncio.create_task(self._visit(engine, guest, options, source)))
            await _forwards(engine, rng.choice((0, 0, 0, 1, 3)), tasks)
        leaver = asyncio.create_task(ask(engine, self._random.decode()))
        await _forwards(engine, 2, tasks)
        leaver.cancel()
        await asyncio.gather(*tasks)

    async def _visit(
        self, engine: Engine, request: Request, options: RequestOptions, source: str
    ) -> None:
        self._enter(request, await ask(engine, request, options), source)

    def _enter(
        self, request: Request, answer: tuple[QueryResult, ...] | DecodingResult, source: str
    ) -> None:
        if isinstance(answer, DecodingResult):
            assert isinstance(request, DecodeRequest)
            self.ledger.enter_completions(request.name, request.prompt, answer, source)
            return
        assert isinstance(request, ScoreRequest)
        for query, result in zip(request.queries, answer, strict=True):
            assert isinstance(result, LogprobResult), result
            self.ledger.enter_score(query, result, source)

    def _count_batches(self, before: EngineStats, after: EngineStats) -> None:
        self.batches += after.batches - before.batches
        self.shared_batches += after.shared_batches - before.shared_batches
        self.batch_requests += after.batch_requests - before.batch_requests


def _singles(request: Request) -> list[Request]:
    if isinstance(request, DecodeRequest):
        return [request]
    return [ScoreRequest((query,)) for query in request.queries]


def _retold(request: Request, found: DecodingResult) -> ScoreRequest:
    """The completions of a search, as candidates of its prompt."""
    assert isinstance(request, DecodeRequest)
    paths = [request.prompt + hypothesis.token_ids for hypothesis in found.hypotheses]
    return ScoreRequest(tuple(LogprobQuery(path, len(request.prompt)) for path in paths))


async def _forwards(engine: Engine, count: int, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for so many forwards more, or until nobody waits for any."""
    until = engine.stats().batches + count
    while engine.stats().batches < until and not all(task.done() for task in tasks):
        await asyncio.sleep(POLL_S)
