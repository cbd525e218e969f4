"""Scoring where a query is asked once: kept answers first, then those that are on their way.

::

    queries ──> keys ──> in the cache? ──no──> in flight? ──no──> a call of its own
                             │ yes                 │ yes               │
                             v                     v                   v
                          answers  <───── the call's answers ──> kept in the cache

Every request that waits for a call has its own deadline and may leave; the last one to leave
cancels the call. Its answers are shared, its failure is not: the others ask again, since the queue
may have room for less, or a later deadline may do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from app.cache.cache_key import cache_keys
from app.cache.inflight import Answers, InflightCall, InflightCalls, Wanted
from app.cache.score_cache import ScoreCache
from app.cache.waiter import Waiter
from app.requests.worker_threads import WorkerThreads
from app.telemetry.request_trace import stage
from model_runtime import (
    ForwardObserver,
    LogprobQuery,
    QueryResult,
    RequestOptions,
    RequestOutput,
)

Score = Callable[[Sequence[LogprobQuery], RequestOptions], Awaitable[RequestOutput[Answers]]]

TOKENS_ON_LOOP = 100_000
QUERIES_ON_LOOP = 200
"""Of a request that is gone through on the event loop, in about a millisecond."""

QUERY_TOKENS = 500
"""A query costs as much as so many tokens, however short it is."""

MAX_FAILED_JOINS = 2
"""So often others may fail under a request that waits for them; from then on it asks by itself."""


class CachedScorer:
    """``Engine.score`` with the same contract, and less work.

    Requests of different ``cache_salt`` share nothing. Of identical queries in one request one is
    asked. Lives on the event loop.

    Args:
        score: the engine's.
        fingerprint: of the model that answers.
        cache: where answers are kept; errors never are.
        threads: where large requests are gone through.
    """

    def __init__(
        self, score: Score, fingerprint: str, cache: ScoreCache, threads: WorkerThreads
    ) -> None:
        self._threads = threads
        self._score = score
        self._fingerprint = fingerprint
        self._cache = cache
        self._inflight = InflightCalls()

    @property
    def inflight_queries(self) -> int:
        """Distinct queries that are being asked."""
        return len(self._inflight)

    async def score(
        self, queries: Sequence[LogprobQuery], options: RequestOptions, *, beside: int = 0
    ) -> RequestOutput[Answers]:
        """Answer queries, in their order. One that cannot be answered is answered by its error.

        Args:
            queries: what is asked.
            options: of the request.
            beside: so many of them, the last ones, are not counted among reused scores.

        Raises:
            ChainruleError: the whole request failed; the kinds are those of ``Engine.score``.
        """
        waiter = Waiter(options, self._threads if _is_large(queries) else None)
        keys, wanted = await waiter.run(self._look_up, queries, waiter)
        uncounted = set(keys[len(keys) - beside :])
        hits = len(waiter.answers) - sum(key in waiter.answers for key in uncounted)
        while len(waiter.answers) < len(wanted):
            await self._ask(wanted, waiter)
        self._cache.record_shared(waiter.joined)
        return await waiter.run(waiter.outcome, keys, hits)

    def _look_up(
        self, queries: Sequence[LogprobQuery], waiter: Waiter
    ) -> tuple[list[bytes], Wanted]:
        """The digest of each query, and the distinct ones."""
        keys = cache_keys(self._fingerprint, waiter.options.cache_salt, queries)
        wanted = dict(zip(keys, queries, strict=True))
        waiter.answers |= self._cache.get_all(wanted)
        return keys, wanted

    async def _ask(self, wanted: Wanted, waiter: Waiter) -> None:
        """Ask what is missing and nobody asks, and wait for all; others may ask in vain."""
        rest, size = await waiter.run(_without, wanted, waiter.answers)
        joined = await self._joinable(rest, size, waiter)
        if joined:
            rest, size = await waiter.run(_without, rest, joined)
        own = self._start_call(rest, size, waiter) if rest else None
        others = {*joined.values()}
        calls = others | ({own} if own is not None else set())
        for call in calls:
            call.waiting += 1
        try:
            if others:
                with stage("shared", map(_observer, others)):
                    await waiter.wait(calls, own)
            else:
                await waiter.wait(calls, own)
        finally:
            for call in calls:
                call.waiting -= 1
                if not call.waiting and call.task.cancel():
                    self._inflight.remove(call)
        await waiter.run(waiter.take, joined, own)

    async def _joinable(
        self, missing: Wanted, size: int, waiter: Waiter
    ) -> Mapping[bytes, InflightCall]:
        if waiter.failed_joins == MAX_FAILED_JOINS:
            return {}
        calls = self._inflight.sharing(missing, waiter.options, size)
        return await waiter.run(_shared, missing, calls) if calls else {}

    def _start_call(self, wanted: Wanted, size: int, waiter: Waiter) -> InflightCall:
        waiter.deadline.check()
        call = InflightCall(wanted, waiter.options, size)
        self._inflight.add(call, self._run_call(call, waiter))
        return call

    async def _run_call(self, call: InflightCall, waiter: Waiter) -> RequestOutput[Answers]:
        try:
            outcome = await self._score(tuple(call.wanted.values()), call.options)
            call.answers = await waiter.run_for_all(self._keep, call.wanted, outcome.value)
            return outcome
        finally:
            self._inflight.remove(call)

    def _keep(self, wanted: Wanted, answers: Answers) -> Mapping[bytes, QueryResult]:
        found = dict(zip(wanted, answers, strict=True))
        self._cache.put_all(found)
        return found


def _is_large(queries: Sequence[LogprobQuery]) -> bool:
    # To count the tokens of very many queries takes too long as well.
    return (
        len(queries) > QUERIES_ON_LOOP
        or sum(len(query.tokens) for query in queries) > TOKENS_ON_LOOP
    )


def _observer(call: InflightCall) -> ForwardObserver | None:
    return call.options.observer


def _without(wanted: Wanted, there: Mapping[bytes, object]) -> tuple[Wanted, int]:
    """What is not there, and how much it asks."""
    if there:
        wanted = {digest: query for digest, query in wanted.items() if digest not in there}
    return wanted, sum(len(query.tokens) + QUERY_TOKENS for query in wanted.values())


def _shared(wanted: Wanted, calls: Iterable[InflightCall]) -> dict[bytes, InflightCall]:
    return {digest: call for call in calls for digest in call.wanted.keys() & wanted.keys()}
