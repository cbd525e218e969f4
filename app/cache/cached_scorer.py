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

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from app.cache.cache_key import cache_keys
from app.cache.inflight_call import InflightCall
from app.cache.inflight_index import InflightIndex
from app.cache.score_cache import ScoreCache
from app.cache.waiter import Waiter
from model_runtime import (
    ChainruleError,
    LogprobQuery,
    LogprobResult,
    QueryResult,
    RequestOptions,
    RequestOutput,
)

Answers = tuple[QueryResult, ...]
T = TypeVar("T")
Ask = Callable[[Sequence[LogprobQuery], RequestOptions], Awaitable[RequestOutput[Answers]]]
Wanted = Mapping[bytes, LogprobQuery]
Found = Mapping[bytes, QueryResult]

TOKENS_ON_LOOP = 100_000
"""Tokens of a request whose digests are made on the event loop; it takes about a millisecond."""

QUERY_TOKENS = 500
"""A query costs as much as so many tokens, however short it is."""

QUERIES_ON_LOOP = 1_000
"""Queries of a request that are gone through on the event loop; of more they are on a thread."""

MAX_FAILED_JOINS = 2
"""So often others may fail under a request that waits for them; from then on it asks by itself."""

QUERIES_AT_A_TIME = 1_000
"""Answers that are looked up or put away before others get their turn on the event loop."""


class CachedScorer:
    """``Engine.score`` and ``Engine.next_token`` with the same contract, and less work.

    Requests of different ``cache_salt`` share nothing. Of identical queries in one request one is
    asked. Lives on the event loop.

    Args:
        ask: the engine's ``score``.
        fingerprint: of the model that answers.
        cache: where answers are kept; errors never are.
    """

    def __init__(self, ask: Ask, fingerprint: str, cache: ScoreCache) -> None:
        self._ask = ask
        self._fingerprint = fingerprint
        self._cache = cache
        self._inflight = InflightIndex()

    @property
    def inflight_queries(self) -> int:
        """Distinct queries that are being asked."""
        return len(self._inflight)

    async def score(
        self, queries: Sequence[LogprobQuery], options: RequestOptions
    ) -> RequestOutput[Answers]:
        """Answer queries, in their order. One that cannot be answered is answered by its error.

        Raises:
            ChainruleError: the whole request failed; the kinds are those of ``Engine.score``.
        """
        waiter = Waiter(options)
        keys, wanted = await waiter.deadline.run_before(self._keyed(queries, options.cache_salt))
        answers = await self._cached(wanted)
        hits = len(answers)
        while missing := await _in_turn(len(wanted), _without, wanted, answers):
            found = await self._asked(missing, waiter)
            answers = await _in_turn(len(found), _merged, answers, found)
        self._cache.record_shared(waiter.joined)
        value = await _in_turn(len(keys), _in_order, keys, answers)
        return waiter.outcome(value, hits + waiter.joined)

    async def next_token(
        self, query: LogprobQuery, options: RequestOptions
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

    async def _keyed(
        self, queries: Sequence[LogprobQuery], salt: str
    ) -> tuple[list[bytes], Wanted]:
        """The digest of each query, and the distinct ones; off the event loop if they are many."""
        if len(queries) > QUERIES_ON_LOOP or _tokens(queries) > TOKENS_ON_LOOP:
            return await asyncio.to_thread(self._identify, queries, salt)
        return self._identify(queries, salt)

    def _identify(self, queries: Sequence[LogprobQuery], salt: str) -> tuple[list[bytes], Wanted]:
        keys = cache_keys(self._fingerprint, salt, queries)
        return keys, dict(zip(keys, queries, strict=True))

    async def _cached(self, wanted: Wanted) -> Found:
        answers: dict[bytes, QueryResult] = {}
        if not self._cache.enabled:
            return answers
        for count, digest in enumerate(wanted, 1):
            result = self._cache.get(digest)
            if result is not None:
                answers[digest] = result
            if count % QUERIES_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return answers

    async def _asked(self, missing: Wanted, waiter: Waiter) -> Found:
        """Ask what nobody asks, wait for all; without what others asked in vain."""
        rest, size = missing, await _in_turn(len(missing), _size, missing)
        joined = await self._joinable(missing, size, waiter)
        if joined:
            rest = await _in_turn(len(missing), _without, missing, joined)
            size = await _in_turn(len(rest), _size, rest)
        own = self._start_call(rest, size, waiter) if rest else None
        calls = {*joined.values(), *([] if own is None else [own])}
        for call in calls:
            call.add_waiter()
        try:
            await waiter.wait(calls, own)
        finally:
            for call in calls:
                if call.remove_waiter():
                    self._inflight.remove(call)
        found = await _in_turn(len(joined), _answered, joined)
        waiter.joined += len(found)
        waiter.failed_joins += len(found) < len(joined)
        if own is None:
            return found
        waiter.outcomes.append(own.task.result())
        return await _in_turn(len(missing), _merged, found, own.answers)

    async def _joinable(
        self, missing: Wanted, size: int, waiter: Waiter
    ) -> dict[bytes, InflightCall]:
        if not self._inflight or waiter.failed_joins == MAX_FAILED_JOINS:
            return {}
        joined = {
            digest: call
            for digest, call in self._inflight.small(missing).items()
            if call.can_share(waiter.options, size)
        }
        large = [call for call in self._inflight.large if call.can_share(waiter.options, size)]
        return joined | await _in_turn(len(missing), _shared, missing, large) if large else joined

    def _start_call(self, wanted: Wanted, size: int, waiter: Waiter) -> InflightCall:
        """Ask; others may join from now on."""
        waiter.deadline.check()
        call = InflightCall(wanted, waiter.options, size)
        self._inflight.add(call)
        call.start(self._run_call(call, waiter.options))
        return call

    async def _run_call(
        self, call: InflightCall, options: RequestOptions
    ) -> RequestOutput[Answers]:
        wanted = call.wanted
        try:
            outcome = await self._ask(tuple(wanted.values()), options)
            call.answers = await _in_turn(len(wanted), _by_digest, wanted, outcome.value)
            if self._cache.enabled:
                await self._keep(call.answers)
            return outcome
        finally:
            self._inflight.remove(call)

    async def _keep(self, answers: Found) -> None:
        for count, (digest, answer) in enumerate(answers.items(), 1):
            if isinstance(answer, LogprobResult):
                self._cache.put(digest, answer)
            if count % QUERIES_AT_A_TIME == 0:
                await asyncio.sleep(0)


async def _in_turn(queries: int, work: Callable[..., T], *args: Any) -> T:
    """What ``work`` returns, which goes through so many queries; of many on a thread."""
    return await asyncio.to_thread(work, *args) if queries > QUERIES_ON_LOOP else work(*args)


def _without(wanted: Wanted, there: Mapping[bytes, object]) -> Wanted:
    if not there:
        return wanted
    return {digest: query for digest, query in wanted.items() if digest not in there}


def _merged(some: Found, others: Found) -> Found:
    return {**some, **others} if some else others


def _in_order(keys: Iterable[bytes], answers: Found) -> Answers:
    return tuple(answers[digest] for digest in keys)


def _by_digest(wanted: Wanted, answers: Answers) -> Found:
    return dict(zip(wanted, answers, strict=True))


def _shared(wanted: Wanted, calls: Iterable[InflightCall]) -> dict[bytes, InflightCall]:
    return {d: call for call in calls for d in wanted if d in call.wanted}


def _answered(joined: Mapping[bytes, InflightCall]) -> Found:
    """The answers of the calls that have returned."""
    return {d: call.answers[d] for d, call in joined.items() if d in call.answers}


def _size(wanted: Wanted) -> int:
    return _tokens(wanted.values())


def _tokens(queries: Iterable[LogprobQuery]) -> int:
    return sum(len(query.tokens) + QUERY_TOKENS for query in queries)


def _with_value(outcome: RequestOutput[Any], value: LogprobResult) -> RequestOutput[LogprobResult]:
    result: RequestOutput[LogprobResult] = replace(outcome, value=value)
    return result
