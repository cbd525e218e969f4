"""The façade: what it refuses, what it makes of answers, and how it starts."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import cast

import pytest
import torch

from model_runtime.batching.batch import Batch, QuerySlice
from model_runtime.batching.trie import QUERIES_PER_TOKEN, ROWS_PER_TOKEN
from model_runtime.config import EngineConfig
from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.engine import EXAMINERS, Engine
from model_runtime.errors import (
    DeadlineExceeded,
    EngineNotReady,
    EngineOverloaded,
    EngineStopping,
    InvalidQuery,
    ModelLoadError,
    NonFiniteLogits,
    PathTooLong,
    RequestTooLarge,
    TokenIdOutOfRange,
)
from model_runtime.loading.reference import reference_logprobs
from model_runtime.memory.available import AvailableMemory
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import LogprobQuery, LogprobResult, ModelInfo, QueryResult, RequestOptions
from tests.conftest import TinyFolder
from tests.model_runtime.fake_model import FakeModel, Gate, ask, expected
from tests.model_runtime.on_loop import on_loop
from tests.offline import eager_model

VOCAB, LONGEST, CACHE = 100, 50, 40

INFO = ModelInfo(
    name="fake",
    fingerprint="",
    architecture="Fake",
    dtype="float32",
    device="cpu",
    vocab_size=VOCAB,
    max_model_len=LONGEST,
    bos_token_id=None,
    end_token_ids=(),
    parameters=0,
)


@dataclass
class FakeClock:
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class FakeCache:
    capacity: int = CACHE
    used: int = 7
    pinned: int = 5
    evicted: int = 11
    row_bytes: int = 500


def engine_of(model: FakeModel, config: EngineConfig | None = None) -> Engine:
    tokenizer = cast(Tokenizer, None)
    return Engine(config or EngineConfig(), INFO, tokenizer, model.forward, FakeCache())


@asynccontextmanager
async def started(engine: Engine) -> AsyncIterator[Engine]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(drain_s=5)


@pytest.mark.parametrize(
    ("query", "kind", "param"),
    [
        (LogprobQuery((), 1), InvalidQuery, None),
        (ask(1, 2, score_from=0), InvalidQuery, "score_from"),
        (ask(1, 2, score_from=3), InvalidQuery, "score_from"),
        (ask(1, 2, score_from=2), InvalidQuery, None),
        (ask(1, VOCAB), TokenIdOutOfRange, None),
        (ask(-1, 2), TokenIdOutOfRange, None),
        (ask(1, 2**63), TokenIdOutOfRange, None),
        (ask(1, 2, targets=(0, VOCAB)), TokenIdOutOfRange, None),
        (ask(1, 2, targets=(-1,)), TokenIdOutOfRange, None),
        (ask(*[1] * (LONGEST + 1)), PathTooLong, None),
        (ask(*[1] * LONGEST), RequestTooLarge, None),
        (replace(ask(1, 2), top_k=-1), InvalidQuery, "top_k"),
        (replace(ask(1, 2), top_k=VOCAB + 1), InvalidQuery, "top_k"),
        (replace(ask(1, 2), temperatures=(0.5,)), InvalidQuery, "temperatures"),
        (replace(ask(1, targets=()), temperatures=(1.0, 0.0)), InvalidQuery, "temperatures"),
        (replace(ask(1, targets=()), temperatures=(-1.0,)), InvalidQuery, "temperatures"),
        (replace(ask(1, targets=()), temperatures=(math.nan,)), InvalidQuery, "temperatures"),
        (replace(ask(1, targets=()), temperatures=(math.inf,)), InvalidQuery, "temperatures"),
    ],
)
def test_what_cannot_be_answered_is_named(
    query: LogprobQuery, kind: type[InvalidQuery], param: str | None
) -> None:
    """Each way to ask for the impossible has its error, found without the model."""
    error = engine_of(FakeModel()).check(query)
    assert error is not None
    assert type(error) is kind
    assert error.param == param
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "query",
    [
        ask(0, VOCAB - 1),
        ask(1, targets=()),
        ask(1, 2, score_from=2, targets=(0, VOCAB - 1)),
        ask(*[1] * (CACHE + 1)),
        replace(ask(1, 2), top_k=VOCAB),
        replace(ask(1, targets=()), temperatures=(5e-324, 1e308)),
    ],
)
def test_what_lies_on_the_limit_is_taken(query: LogprobQuery) -> None:
    """Every limit is inclusive, and the last token of a path needs no place in the cache."""
    assert engine_of(FakeModel()).check(query) is None


@on_loop
async def test_bad_queries_fail_alone_in_their_place() -> None:
    """The others are answered as if the bad ones had not been there, and these are never run."""
    model = FakeModel()
    async with started(engine_of(model)) as engine:
        good, bad = [ask(1, 2), ask(3, 4)], ask(5, VOCAB)
        outcome = await engine.score([bad, good[0], bad, good[1]])
    errors = outcome.value[0], outcome.value[2]
    assert all(type(error) is TokenIdOutOfRange for error in errors)
    assert (outcome.value[1], outcome.value[3]) == (expected(good[0]), expected(good[1]))
    assert bad.tokens not in model.seen


@on_loop
async def test_nothing_but_bad_queries_needs_no_work() -> None:
    """All errors are an outcome at once, with an empty usage."""
    async with started(engine_of(FakeModel())) as engine:
        before = engine.stats().batches
        outcome = await engine.score([ask(5, VOCAB)])
        assert engine.stats().batches == before
    assert type(outcome.value[0]) is TokenIdOutOfRange
    assert (outcome.computed_tokens, outcome.model_s) == (0, 0.0)


@on_loop
async def test_next_token_raises_what_its_query_failed_with() -> None:
    """One query has no item to put an error in."""
    async with started(engine_of(FakeModel())) as engine:
        query = ask(1, 2, score_from=2, targets=(7,))
        assert (await engine.next_token(query)).value == expected(query)
        with pytest.raises(TokenIdOutOfRange):
            await engine.next_token(ask(1, VOCAB))


@on_loop
async def test_a_decode_of_an_impossible_prompt_is_refused() -> None:
    """A search that begins with a bad id never reaches the model."""
    model = FakeModel()
    async with started(engine_of(model)) as engine:
        search = GreedySearch((1, VOCAB), DecodingLimits(max_tokens=3), vocab_size=VOCAB)
        with pytest.raises(TokenIdOutOfRange):
            await engine.decode(search)
    assert (1, VOCAB) not in model.seen


@on_loop
async def test_large_requests_are_gone_through_on_few_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many clients leave while theirs are, and no longer than that is noticed."""
    monkeypatch.setattr("model_runtime.engine.TOKENS_ON_LOOP", 8)
    async with started(engine_of(FakeModel())) as engine:
        gate = threading.Event()
        entered: list[int] = []

        def held(query: LogprobQuery) -> None:
            entered.append(threading.get_ident())
            gate.wait(30)

        monkeypatch.setattr(engine, "check", held)
        queries = [ask(1, 2, i) for i in range(20)]
        for _ in range(6):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await engine.score(queries)
        assert len(entered) <= EXAMINERS
        gate.set()
        monkeypatch.undo()
        assert len((await engine.score([ask(1, 2)])).value) == 1
        await asyncio.sleep(0.1)
        assert len(entered) <= EXAMINERS


@on_loop
async def test_queries_cost_their_time_on_the_model_thread() -> None:
    """Also where they share nearly all of their tokens."""
    gate = Gate()
    model = FakeModel()
    async with started(engine_of(model, EngineConfig(max_queue_tokens=4096))) as engine:
        model.on_run = gate.hold
        count = 4 * QUERIES_PER_TOKEN
        queries = [LogprobQuery((1, 2, 3), 3, (i,)) for i in range(count)]
        task = asyncio.create_task(engine.score(queries))
        await asyncio.to_thread(gate.wait_for_forward)
        assert engine.stats().queued_tokens >= 3 + count // QUERIES_PER_TOKEN
        gate.open()
        assert len((await task).value) == count


@on_loop
async def test_a_request_costs_its_distinct_tokens() -> None:
    """Candidates that share their context are admitted at the cost of their trie and rows."""
    gate = Gate()
    model = FakeModel()
    config = EngineConfig(max_queue_tokens=64)
    async with started(engine_of(model, config)) as engine:
        model.on_run = gate.hold
        context = range(10)
        task = asyncio.create_task(engine.score([ask(*context, i, 1) for i in range(20, 25)]))
        await asyncio.to_thread(gate.wait_for_forward)
        assert engine.stats().queued_tokens == 10 + 5 + 5 * 11 // ROWS_PER_TOKEN
        with pytest.raises(EngineOverloaded):
            await engine.score([ask(*[i] * 30) for i in range(2)])
        with pytest.raises(RequestTooLarge):
            await engine.score([ask(*[i] * 30) for i in range(3)])
        with pytest.raises(DeadlineExceeded):
            await engine.score([ask(1, 2)], RequestOptions(deadline=time.monotonic() + 0.01))
        gate.open()
        await task
        assert engine.stats().queued_tokens == 0


@on_loop
async def test_rows_that_share_their_tokens_are_charged() -> None:
    """Candidates that begin one another are refused by the bound that their rows exceed."""
    config = EngineConfig(max_queue_tokens=64)
    asked = [ask(*range(length)) for _ in range(3) for length in range(2, CACHE)]
    async with started(engine_of(FakeModel(), config)) as engine:
        assert len((await engine.score(asked[: CACHE - 2])).value) == CACHE - 2
        with pytest.raises(RequestTooLarge, match=r"114 tokens .* 64, by max_queue_tokens"):
            await engine.score(asked)


@on_loop
async def test_the_time_runs_while_a_request_is_looked_at() -> None:
    """What it takes to examine a large request is a part of its time, not before it."""
    async with started(engine_of(FakeModel())) as engine:
        with pytest.MonkeyPatch.context() as patch:
            clock = FakeClock()
            patch.setattr(engine._scheduler, "_clock", clock.monotonic)
            patch.setattr(engine._scheduler._batcher, "_clock", clock.monotonic)
            examine = engine._examine

            def slow(queries: Sequence[LogprobQuery], left: threading.Event) -> object:
                clock.now += 70.0
                return examine(queries, left)

            patch.setattr(engine, "_examine", slow)
            await engine.score([ask(1, 2)], RequestOptions(deadline=130.0))
            with pytest.raises(DeadlineExceeded):
                await engine.score([ask(1, 2)], RequestOptions(deadline=130.0))


@on_loop
async def test_ready_means_that_a_forward_has_passed() -> None:
    """Before the warm-up has run nothing is taken; while stopping nothing is taken any more."""
    gate = Gate()
    engine = engine_of(FakeModel(gate.hold))
    with pytest.raises(EngineNotReady):
        await engine.score([ask(1, 2)])
    starting = asyncio.create_task(engine.start())
    await asyncio.to_thread(gate.wait_for_forward)
    with pytest.raises(EngineNotReady):
        await engine.score([ask(1, VOCAB)])
    assert not engine.stats().ready
    assert engine.stats().cache_slots_pinned == 5
    gate.open()
    await starting
    stats = engine.stats()
    assert (stats.ready, stats.batches) == (True, 1)
    assert (stats.cache_slots, stats.cache_slots_used) == (CACHE, 7)
    assert (stats.cache_row_bytes, stats.evicted_tokens) == (500, 11)
    assert stats.cache_slots_pinned == 0
    await engine.stop(drain_s=5)
    assert not engine.stats().ready
    with pytest.raises(EngineStopping):
        await engine.score([ask(1, 2)])


class NeverFinite(FakeModel):
    def answer(self, query_slice: QuerySlice) -> QueryResult:
        return NonFiniteLogits("all NaN")


def _fail(batch: Batch) -> None:
    raise ValueError("no such kernel")


@pytest.mark.parametrize("model", [lambda: NeverFinite(), lambda: FakeModel(_fail)])
@on_loop
async def test_a_model_that_cannot_run_does_not_start(model: Callable[[], FakeModel]) -> None:
    """A warm-up that fails is a load error in one line, and the thread is gone."""
    others = threading.enumerate()
    engine = engine_of(model())
    with pytest.raises(ModelLoadError, match="warm-up") as failure:
        await engine.start()
    assert "\n" not in str(failure.value)
    assert not engine.stats().ready
    started = [thread for thread in threading.enumerate() if thread not in others]
    assert not [thread for thread in started if thread.name == "model"]


@on_loop
async def test_the_death_of_the_model_thread_is_told() -> None:
    """``wait_dead`` returns what killed it, and health shows it."""
    model = FakeModel()

    def die(batch: Batch) -> None:
        raise SystemExit("gone")

    async with started(engine_of(model)) as engine:
        model.on_run = die
        task = asyncio.create_task(engine.score([ask(1, 2)]))
        assert isinstance(await engine.wait_dead(), SystemExit)
        await asyncio.wait([task])
        assert not engine.stats().alive


def test_a_configuration_that_cannot_fit_is_refused(tiny_folder: TinyFolder) -> None:
    """The cache and the largest batch must fit beside the weights; the settings are named."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=1 << 44)
    with pytest.raises(ModelLoadError, match=r"kv_cache_bytes.*max_batch_tokens"):
        Engine.load(config)


@on_loop
async def test_a_cache_too_small_for_all_changes_no_bit(tiny_folder: TinyFolder) -> None:
    """Decodes and scores that evict each other end as if each had been alone, none fails."""
    prompts = [tuple(range(5 + i, 45 + i)) for i in range(4)]
    queries = [ask(*prompt, 7, 8, 9, score_from=40) for prompt in prompts]
    limits = DecodingLimits(max_tokens=12)

    async def answers(kv_tokens: int) -> tuple[list[object], int]:
        config = EngineConfig(
            model=str(tiny_folder("llama")), max_batch_tokens=32, kv_cache_bytes=768 * kv_tokens
        )
        async with started(Engine.load(config)) as engine:
            vocab = engine.info.vocab_size
            before = engine.stats().batch_tokens
            work = [
                *(engine.decode(GreedySearch(p, limits, vocab_size=vocab)) for p in prompts),
                engine.decode(BeamSearch(prompts[0], limits, vocab_size=vocab, num_beams=3)),
                *(engine.score([query]) for query in queries),
            ]
            ends = [outcome.value for outcome in await asyncio.gather(*work)]
            return ends, engine.stats().batch_tokens - before

    roomy, few = await answers(2000)
    cramped, more = await answers(64)
    assert cramped == roomy
    assert few < more < 4 * few


@on_loop
async def test_a_loaded_model_scores_like_the_reference(tiny_folder: TinyFolder) -> None:
    """Planner, cache, runner and scheduler together give the oracle's numbers, chunked or not."""
    folder = tiny_folder("llama")
    config = EngineConfig(model=str(folder), max_batch_tokens=7, kv_cache_bytes=1 << 20)
    queries = [ask(*range(5, 20), i, i + 1, score_from=15, targets=()) for i in range(30, 40)]
    async with started(Engine.load(config)) as engine:
        outcomes = await asyncio.gather(*[engine.score([query]) for query in queries])
        search = GreedySearch(
            tuple(range(5, 20)), DecodingLimits(max_tokens=4), vocab_size=engine.info.vocab_size
        )
        decoded = (await engine.decode(search)).value
        stats = engine.stats()
    assert stats.memory_limit_bytes == AvailableMemory().total
    oracle = eager_model(folder, torch.float64)
    for query, outcome in zip(queries, outcomes, strict=True):
        (answer,) = outcome.value
        assert isinstance(answer, LogprobResult)
        exact = reference_logprobs(oracle, query.tokens)
        want = [float(exact[p - 1, query.tokens[p]]) for p in (15, 16)]
        assert answer.logprobs == pytest.approx(want, abs=1e-4)
    assert len(decoded.hypotheses[0].token_ids) == 4
    assert (stats.queued_tokens, stats.running_requests) == (0, 0)
    assert stats.cached_tokens > 0
