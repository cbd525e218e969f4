"""``Engine.stream``: when tokens come, who waits for whom, and what ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import pytest

from model_runtime.batching.batch import QuerySlice
from model_runtime.config import EngineConfig
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import DecodingResult
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.streaming import GeneratedToken
from model_runtime.engine import Engine
from model_runtime.errors import (
    DeadlineExceeded,
    EngineNotReady,
    EngineOverloaded,
    EngineStopping,
    TokenIdOutOfRange,
)
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import (
    LogprobResult,
    QueryResult,
    RankedLogprob,
    RequestOptions,
    RequestOutput,
)
from tests.model_runtime.fake_model import FakeModel, Gate, ask, paths
from tests.model_runtime.on_loop import on_loop
from tests.model_runtime.test_engine import INFO, VOCAB, FakeCache

PROMPT = (1, 2)


class Successor(FakeModel):
    """After every token its successor, sure by a half."""

    def answer(self, query_slice: QuerySlice) -> QueryResult:
        if query_slice.query.choice is None:
            return super().answer(query_slice)
        token = (query_slice.query.tokens[-1] + 1) % VOCAB
        return LogprobResult(choices=(RankedLogprob(token, -0.5, 1),))


@asynccontextmanager
async def started(model: FakeModel, max_queue_tokens: int = 100) -> AsyncIterator[Engine]:
    config = EngineConfig(max_queue_tokens=max_queue_tokens)
    tokenizer = cast(Tokenizer, None)
    engine = Engine(config, INFO, tokenizer, model.forward, FakeCache())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(drain_s=5)


@asynccontextmanager
async def gated() -> AsyncIterator[tuple[Engine, Gate, Successor]]:
    """An engine whose forwards wait at a gate."""
    gate, model = Gate(), Successor()
    async with started(model) as engine:
        model.on_run = gate.hold
        yield engine, gate, model


def greedy(max_tokens: int, prompt: tuple[int, ...] = PROMPT) -> GreedySearch:
    return GreedySearch(prompt, DecodingLimits(max_tokens=max_tokens), vocab_size=VOCAB)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def held(model: FakeModel, prompt: tuple[int, ...] = PROMPT) -> int:
    """Batches so far with a path behind this prompt in them."""
    return sum(any(p[: len(prompt)] == prompt for p in paths(batch)) for batch in model.ran)


Item = GeneratedToken | RequestOutput[DecodingResult]


@on_loop
async def test_tokens_come_in_order_and_then_the_outcome() -> None:
    """The tokens are those of the completion, and the last one brings it along."""
    async with started(Successor()) as engine:
        items: list[Item] = [item async for item in engine.stream(greedy(3))]
        plain = await engine.decode(greedy(3))
    *tokens, outcome = items
    assert isinstance(outcome, RequestOutput)
    assert outcome.value == plain.value
    (found,) = outcome.value.hypotheses
    generated = [token for token in tokens if isinstance(token, GeneratedToken)]
    assert tuple(token.id for token in generated) == found.token_ids == (3, 4, 5)
    assert tuple(token.logprob for token in generated) == found.token_logprobs
    assert [token.completion for token in generated] == [None, None, found]


@on_loop
async def test_a_token_comes_before_the_next_step() -> None:
    """A token can be read while the forward that follows it still runs."""
    async with gated() as (engine, gate, model), aclosing(engine.stream(greedy(3))) as stream:
        gate.let_one_through()
        first = await anext(stream)
        assert isinstance(first, GeneratedToken)
        assert (first.id, held(model)) == (3, 1)
        gate.open()


@on_loop
async def test_leaving_takes_the_search_out_of_the_next_batch() -> None:
    """What runs when the reader leaves is the last that is computed for it."""
    async with gated() as (engine, gate, model):
        async with aclosing(engine.stream(greedy(30))) as stream:
            gate.let_one_through()
            await anext(stream)
            await asyncio.to_thread(gate.wait_for_forward)
            await asyncio.to_thread(gate.wait_for_forward)
        await until(lambda: engine.stats().queued_tokens == 0)
        gate.open()
        await engine.score([ask(7, 8)])
        await engine.score([ask(8, 9)])
    assert held(model) == 2


@on_loop
async def test_a_reader_who_never_reads_holds_nobody_up() -> None:
    """Its search ends at the model's pace, its tokens wait, and its place is free."""
    async with started(Successor()) as engine, aclosing(engine.stream(greedy(20))) as stream:
        await anext(stream)
        beside = await engine.decode(greedy(20, prompt=(5, 6)))
        assert len(beside.value.hypotheses[0].token_ids) == 20
        await until(lambda: engine.stats().queued_tokens == 0)
        rest = [item async for item in stream]
    assert len(rest) == 20


@on_loop
async def test_a_deadline_ends_a_stream_between_two_tokens() -> None:
    """What was chosen in time is read first, then the error."""
    async with gated() as (engine, gate, _model):
        read: list[Any] = []
        gate.let_one_through()
        with pytest.raises(DeadlineExceeded):
            options = RequestOptions(deadline=time.monotonic() + 1.0)
            async for item in engine.stream(greedy(30), options):
                read.append(item)
        gate.open()
    assert [token.id for token in read] == [3]


@on_loop
async def test_stopping_ends_a_stream() -> None:
    """The reader is told, as every other request is."""
    async with gated() as (engine, gate, _model), aclosing(engine.stream(greedy(30))) as stream:
        gate.let_one_through()
        await anext(stream)
        stopping = asyncio.create_task(engine.stop(drain_s=0))
        with pytest.raises(EngineStopping):
            await anext(stream)
        gate.open()
        await stopping


@on_loop
async def test_what_cannot_begin_is_raised_at_the_first_read() -> None:
    """A bad prompt, a full queue and an engine that is not ready are errors, not streams."""
    gate, model = Gate(), Successor()
    engine = Engine(EngineConfig(), INFO, cast(Tokenizer, None), model.forward, FakeCache())
    with pytest.raises(EngineNotReady):
        await anext(engine.stream(greedy(3)))
    async with started(model, max_queue_tokens=48) as engine:
        with pytest.raises(TokenIdOutOfRange):
            await anext(engine.stream(greedy(3, prompt=(1, VOCAB))))
        model.on_run = gate.hold
        async with aclosing(engine.stream(greedy(30))) as stream:
            gate.let_one_through()
            await anext(stream)
            with pytest.raises(EngineOverloaded):
                await anext(engine.stream(greedy(30)))
            gate.open()


@on_loop
async def test_no_task_is_left_behind(recwarn: pytest.WarningsRecorder) -> None:
    """Neither a stream that was read to its end nor one that was left keeps a task."""
    async with started(Successor()) as engine:
        before = asyncio.all_tasks()
        async for _ in engine.stream(greedy(3)):
            pass
        async with aclosing(engine.stream(greedy(30))) as stream:
            await anext(stream)
        await until(lambda: asyncio.all_tasks() == before)
