"""The runtime's interface: load a model, start it, ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from threading import Event
from typing import Any, TypeVar

from model_runtime.batching.trie import fed_tokens
from model_runtime.config import EngineConfig
from model_runtime.decoding.base import SearchStrategy, SingleRound
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import DecodingResult
from model_runtime.decoding.streaming import GeneratedToken, StreamedSearch
from model_runtime.errors import (
    ChainruleError,
    EngineNotReady,
    EngineStalled,
    InvalidQuery,
    ModelLoadError,
    UnsupportedModel,
)
from model_runtime.loading.self_check import ReferenceSample, check_batch_invariance, check_cached
from model_runtime.memory.available import AvailableMemory
from model_runtime.runner.served_model import CacheGauge, ModelBackend
from model_runtime.scheduling.engine_stats import EngineStats
from model_runtime.scheduling.forward import ForwardPipeline
from model_runtime.scheduling.query_validation import QueryValidator
from model_runtime.scheduling.scheduler import DEFAULT_OPTIONS, Scheduler
from model_runtime.scheduling.watchdog import Watchdog
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import (
    LogprobQuery,
    LogprobResult,
    ModelInfo,
    Priority,
    QueryResult,
    RequestOptions,
    RequestOutput,
)

R = TypeVar("R")

WARM_UP_TOKENS = 64
EXAMINERS = 2
"""Threads that go through large requests; whoever finds both taken waits."""
TOKENS_ON_LOOP = 20_000
"""Tokens of a request that are checked on the event loop; it takes about a millisecond."""


class Engine:
    """A model that answers questions about token paths. See ``Engine.load``.

    Args:
        config: how the engine is set up.
        info: what is served.
        tokenizer: the model's own.
        model: what a batch goes through; called on the model thread only.
        cache: for ``stats`` and for what can never fit.
        sample: what the warm-up forward is compared with.
        memory_limit_bytes: what the process may take, for ``stats``; 0 where it is not known.
    """

    def __init__(
        self,
        config: EngineConfig,
        info: ModelInfo,
        tokenizer: Tokenizer,
        model: ForwardPipeline,
        cache: CacheGauge,
        sample: ReferenceSample | None = None,
        memory_limit_bytes: int = 0,
    ) -> None:
        self.config = config
        self.info = info
        self.tokenizer = tokenizer
        self._cache = cache
        self._scheduler = Scheduler(
            model,
            max_batch_tokens=config.max_batch_tokens,
            max_queue_tokens=config.max_queue_tokens,
            watchdog=Watchdog(config.watchdog_timeout_s),
        )
        self._limits = QueryValidator(info.vocab_size, info.max_model_len, cache.capacity)
        self._sample = sample
        self._warm = False
        self._examiners = ThreadPoolExecutor(EXAMINERS, "examine")
        self._memory_limit_bytes = memory_limit_bytes

    @classmethod
    def load(cls, config: EngineConfig) -> Engine:
        """Load weights and tokenizer. Blocks; may be called off the event loop.

        Raises:
            ModelLoadError: one of its kinds, in one line.
        """
        served = ModelBackend.load(config)
        limit = AvailableMemory().total or 0
        model, cache = served.forward, served.cache
        return cls(config, served.info, served.tokenizer, model, cache, served.sample, limit)

    async def start(self) -> None:
        """Start the model thread and run a forward on it; the engine is ready afterwards.

        Raises:
            ModelLoadError: the model is loaded but cannot run.
            EngineStalled: its first forward hangs.
        """
        self._scheduler.start()
        try:
            await self._warm_up()
        except BaseException as error:
            await self._scheduler.stop(0)
            if isinstance(error, ModelLoadError | EngineStalled) or not isinstance(
                error, Exception
            ):
                raise
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise UnsupportedModel(
                f"the warm-up forward of {self.info.architecture} failed: {reason}"
            ) from error
        self._warm = True

    def check_room(self, priority: Priority = Priority.INTERACTIVE) -> None:
        """Refuse a request that nobody has looked at yet, where the queue is nearly full.

        Raises:
            EngineOverloaded: it is. Says when to come back.
        """
        self._scheduler.check_room(priority)

    def reserve(
        self, least: int, options: RequestOptions = DEFAULT_OPTIONS, *, check_room: bool = True
    ) -> AbstractAsyncContextManager[None]:
        """Count a request as waiting to be tokenized while the block runs.

        So no line grows before the threads that tokenize. What is asked afterwards is admitted by
        its own cost. On the event loop only.

        Args:
            least: tokens that it has at least.
            options: whether it waits where there is no room.
            check_room: whether the queue must have room as well.

        Raises:
            EngineOverloaded, DeadlineExceeded: there is no room; raised when the block is entered.
            EngineUnavailable: no work is taken.
        """
        return self._scheduler.reserve(least, options, check_room=check_room)

    async def score(
        self, queries: Sequence[LogprobQuery], options: RequestOptions = DEFAULT_OPTIONS
    ) -> RequestOutput[tuple[QueryResult, ...]]:
        """Answer queries, in their order. One that cannot be answered is answered by its error.

        Raises:
            ChainruleError: the whole request failed; the kinds are those of ``Scheduler.submit``.
        """
        self._check_warm()
        large = _is_large(queries)
        left = Event()
        try:
            errors, strategy = await self._off_loop_if(large, self._examine, queries, left)
        finally:
            left.set()
        if strategy is None:
            return _nothing_done(tuple(errors.values()))
        outcome = await self._scheduler.submit(strategy, options)
        if not errors:
            return outcome
        return _with_value(outcome, await self._off_loop_if(large, _merged, outcome.value, errors))

    async def next_token(
        self, query: LogprobQuery, options: RequestOptions = DEFAULT_OPTIONS
    ) -> RequestOutput[LogprobResult]:
        """Answer one query.

        Raises:
            ChainruleError: as ``score``, and what the query itself failed with.
        """
        outcome = await self.score((query,), options)
        (answer,) = outcome.value
        if isinstance(answer, ChainruleError):
            raise answer
        return _with_value(outcome, answer)

    async def decode(
        self, search: SearchStrategy[R], options: RequestOptions = DEFAULT_OPTIONS
    ) -> RequestOutput[R]:
        """Run a search to its end.

        Raises:
            ChainruleError: as ``score``, what is wrong with the search's first queries, and
                what the search raised.
        """
        self._check_search(search)
        return await self._scheduler.submit(search, options)

    async def stream(
        self, search: GreedySearch, options: RequestOptions = DEFAULT_OPTIONS
    ) -> AsyncGenerator[GeneratedToken | RequestOutput[DecodingResult], None]:
        """Run a search; yields each token as soon as it is chosen, then the outcome.

        The model never waits for the reader: tokens that are not read yet wait here, at most
        ``max_tokens`` of them. Closing the iterator takes the search out of the next batch.

        Raises:
            ChainruleError: as ``decode``; before the first token or between two.
        """
        self._check_search(search)
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[GeneratedToken | None] = asyncio.Queue()
        streamed = StreamedSearch(
            search, lambda token: loop.call_soon_threadsafe(told.put_nowait, token)
        )

        def end(task: asyncio.Task[RequestOutput[DecodingResult]]) -> None:
            if not task.cancelled():
                task.exception()  # seen, also where nobody reads on
            told.put_nowait(None)

        task = asyncio.create_task(self._scheduler.submit(streamed, options))
        task.add_done_callback(end)
        try:
            while (token := await told.get()) is not None:
                yield token
            yield await task
        finally:
            task.cancel()

    def check(self, query: LogprobQuery) -> InvalidQuery | None:
        """What makes a query unanswerable, found without running it; None where nothing does."""
        return self._limits.check(query)

    def stats(self) -> EngineStats:
        """Counters and gauges of this moment. From any thread; never blocks."""
        stats = self._scheduler.stats()
        return replace(
            stats,
            ready=stats.ready and self._warm,
            cache_slots=self._cache.capacity,
            cache_slots_used=self._cache.used,
            cache_slots_pinned=self._cache.pinned if stats.running_requests else 0,
            evicted_tokens=self._cache.evicted,
            cache_row_bytes=self._cache.row_bytes,
            memory_limit_bytes=self._memory_limit_bytes,
        )

    async def stop(self, drain_s: float) -> None:
        """Refuse new work, finish what is admitted, end the rest after ``drain_s`` seconds."""
        await self._scheduler.stop(drain_s)
        self._examiners.shutdown(wait=False, cancel_futures=True)

    async def wait_dead(self) -> BaseException:
        """Return when the model thread has died, with what killed it, or was given up."""
        return await self._scheduler.wait_dead()

    async def _warm_up(self) -> None:
        """Run real forwards. A path must score alone what it scores beside another."""
        longest = min(self.info.max_model_len, self._cache.capacity)
        if self._sample is None:
            await self._score_paths("alone", (0,) * min(WARM_UP_TOKENS, longest))
            return
        path, fork = self._sample.paths(longest)
        (alone,) = await self._score_paths("alone", path)
        (fork_alone,) = await self._score_paths("fork", fork)
        fork_together, together = await self._score_paths("together", fork, path)
        check_batch_invariance(fork_alone + alone, fork_together + together, self.info)
        await self._check_cached(path, alone)
        error = self._sample.error_of(alone, self.info)
        self.info = replace(self.info, numeric_error=error)

    async def _check_cached(self, path: tuple[int, ...], whole: tuple[float, ...]) -> None:
        """Ask for the end of a path twice; the second time its beginning is in the cache."""
        start = max(1, 2 * len(path) // 3)
        await self._score_paths("cached", path, score_from=start)
        (tail,) = await self._score_paths("cached", path, score_from=start)
        check_cached(whole[start - 1 :], tail, self.info)

    async def _score_paths(
        self, salt: str, *paths: tuple[int, ...], score_from: int = 1
    ) -> list[tuple[float, ...]]:
        """Log-probabilities of paths, computed together and apart from every other salt."""
        queries = [
            LogprobQuery(path, score_from, (), cache_salt=f"warm-up {salt}") for path in paths
        ]
        strategy = SingleRound(queries, cost=fed_tokens(queries))
        outcome = await self._scheduler.submit(strategy, DEFAULT_OPTIONS)
        logprobs = []
        for answer in outcome.value:
            if isinstance(answer, ChainruleError):
                raise answer
            logprobs.append(answer.logprobs)
        return logprobs

    async def _off_loop_if(self, large: bool, work: Callable[..., R], *args: Any) -> R:
        """What ``work`` returns; off the event loop where it is large, on few threads."""
        if not large:
            return work(*args)
        return await asyncio.get_running_loop().run_in_executor(self._examiners, work, *args)

    def _examine(
        self, queries: Sequence[LogprobQuery], left: Event
    ) -> tuple[dict[int, InvalidQuery], SingleRound | None]:
        """What is wrong with queries, by index, and the strategy that asks the others, if any.

        It ends soon, with whatever it has found, once the caller has ``left``.
        """
        errors: dict[int, InvalidQuery] = {}
        good: list[LogprobQuery] = []
        for index, query in enumerate(queries):
            if left.is_set():
                return errors, None
            error = self.check(query)
            if error is None:
                good.append(query)
            else:
                errors[index] = error
        return errors, SingleRound(good, cost=fed_tokens(good)) if good else None

    def _check_search(self, search: SearchStrategy[Any]) -> None:
        """Raise what is wrong with a search, as far as its first queries tell."""
        self._check_warm()
        queries = () if search.done else search.queries()
        errors = (self._limits.check_path(search.longest_path), *map(self.check, queries))
        for error in errors:
            if error is not None:
                raise error

    def _check_warm(self) -> None:
        if not self._warm:
            raise EngineNotReady("the model is not loaded and warmed up yet")


def _is_large(queries: Sequence[LogprobQuery]) -> bool:
    """Whether to look at every token takes too long for the event loop."""
    # A query has a token at least, and to count those of all of them is too long as well.
    return (
        len(queries) > TOKENS_ON_LOOP
        or sum(len(query.tokens) for query in queries) > TOKENS_ON_LOOP
    )


def _merged(
    answers: Sequence[QueryResult], errors: Mapping[int, InvalidQuery]
) -> tuple[QueryResult, ...]:
    """The answers in order, with the errors at their places."""
    rest = iter(answers)
    count = len(answers) + len(errors)
    return tuple(errors[place] if place in errors else next(rest) for place in range(count))


def _nothing_done(errors: tuple[QueryResult, ...]) -> RequestOutput[tuple[QueryResult, ...]]:
    return RequestOutput(errors, 0, 0, 0.0, 0.0)


def _with_value(outcome: RequestOutput[Any], value: R) -> RequestOutput[R]:
    result: RequestOutput[R] = replace(outcome, value=value)
    return result
