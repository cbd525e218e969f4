"""Scoring where a query is asked once: kept answers first, then those that are on their way.

::

    queries ──> digests ──> in the cache? ──no──> in flight? ──no──> asked, in a flight of its own
                                │ yes                 │ yes                 │
                                v                     v                     v
                             answers  <───── the flight's answers ──> kept in the cache

A flight belongs to nobody. Whoever waits for it has a deadline of its own and may leave; the
last one to leave ends it. Its answers are shared, its failure is not: whoever else waited asks
again, because the queue may have room for less, or a later deadline may do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from app.cache.cache_key import query_digests
from app.cache.inflight_call import Flight
from app.cache.inflight_index import FlightIndex
from app.cache.score_cache import ScoreCache
from app.cache.waiter import Stay
from model_runtime import (
    Answer,
    ChainruleError,
    LogprobQuery,
    LogprobResult,
    Outcome,
    RequestOptions,
)

Answers = tuple[Answer, ...]
T = TypeVar("T")
Ask = Callable[[Sequence[LogprobQuery], RequestOptions], Awaitable[Outcome[Answers]]]
Wanted = Mapping[bytes, LogprobQuery]
Found = Mapping[bytes, Answer]

TOKENS_ON_LOOP = 100_000
"""Tokens of a request whose digests are made on the event loop; it takes about a millisecond."""

QUERY_TOKENS = 500
"""A query costs as much as so many tokens, however short it is."""

QUERIES_ON_LOOP = 1_000
"""Queries of a request that are gone through on the event loop; of more they are on a thread."""

MOST_DISAPPOINTMENTS = 2
"""So often others may fail under a request that waits for them; from then on it asks by itself."""

QUERIES_AT_A_TIME = 1_000
"""Answers that are looked up or put away before others get their turn on the event loop."""


class SharedScores:
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
        self._flights = FlightIndex()

    @property
    def in_flight(self) -> int:
        """Distinct queries that are being asked."""
        return len(self._flights)

    async def score(
        self, queries: Sequence[LogprobQuery], options: RequestOptions
    ) -> Outcome[Answers]:
        """Answer queries, in their order. One that cannot be answered is answered by its error.

        Raises:
            ChainruleError: the whole request failed; the kinds are those of ``Engine.score``.
        """
        stay = Stay(options)
        digests, wanted = await stay.deadline.in_time(self._identified(queries, options.cache_salt))
        answers = await self._kept(wanted)
        hits = len(answers)
        while missing := await _in_turn(len(wanted), _without, wanted, answers):
            found = await self._asked(missing, stay)
            answers = await _in_turn(len(found), _merged, answers, found)
        self._cache.note_shared(stay.joined)
        value = await _in_turn(len(digests), _in_order, digests, answers)
        return stay.outcome(value, hits + stay.joined)

    async def next_token(
        self, query: LogprobQuery, options: RequestOptions
    ) -> Outcome[LogprobResult]:
        """Answer one query.

        Raises:
            ChainruleError: as ``score``, and what the query itself failed with.
        """
        outcome = await self.score((query,), options)
        (answer,) = outcome.value
        if isinstance(answer, ChainruleError):
            raise answer
        return _with_value(outcome, answer)

    async def _identified(
        self, queries: Sequence[LogprobQuery], salt: str
    ) -> tuple[list[bytes], Wanted]:
        """The digest of each query, and the distinct ones; off the event loop if they are many."""
        if len(queries) > QUERIES_ON_LOOP or _tokens(queries) > TOKENS_ON_LOOP:
            return await asyncio.to_thread(self._identify, queries, salt)
        return self._identify(queries, salt)

    def _identify(self, queries: Sequence[LogprobQuery], salt: str) -> tuple[list[bytes], Wanted]:
        digests = query_digests(self._fingerprint, salt, queries)
        return digests, dict(zip(digests, queries, strict=True))

    async def _kept(self, wanted: Wanted) -> Found:
        answers: dict[bytes, Answer] = {}
        if not self._cache.enabled:
            return answers
        for count, digest in enumerate(wanted, 1):
            result = self._cache.get(digest)
            if result is not None:
                answers[digest] = result
            if count % QUERIES_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return answers

    async def _asked(self, missing: Wanted, stay: Stay) -> Found:
        """Ask what nobody asks, wait for all; without what others asked in vain."""
        rest, size = missing, await _in_turn(len(missing), _size, missing)
        joined = await self._joinable(missing, size, stay)
        if joined:
            rest = await _in_turn(len(missing), _without, missing, joined)
            size = await _in_turn(len(rest), _size, rest)
        own = self._depart(rest, size, stay) if rest else None
        flights = {*joined.values(), *([] if own is None else [own])}
        for flight in flights:
            flight.board()
        try:
            await stay.until_landed(flights, own)
        finally:
            for flight in flights:
                if flight.leave():
                    self._flights.remove(flight)
        found = await _in_turn(len(joined), _answered, joined)
        stay.joined += len(found)
        stay.disappointments += len(found) < len(joined)
        if own is None:
            return found
        stay.outcomes.append(own.task.result())
        return await _in_turn(len(missing), _merged, found, own.answers)

    async def _joinable(self, missing: Wanted, size: int, stay: Stay) -> dict[bytes, Flight]:
        if not self._flights or stay.disappointments == MOST_DISAPPOINTMENTS:
            return {}
        joined = {
            digest: flight
            for digest, flight in self._flights.small(missing).items()
            if flight.suits(stay.options, size)
        }
        large = [flight for flight in self._flights.large if flight.suits(stay.options, size)]
        return joined | await _in_turn(len(missing), _shared, missing, large) if large else joined

    def _depart(self, wanted: Wanted, size: int, stay: Stay) -> Flight:
        """Ask; others may join from now on."""
        options = stay.options_now()
        flight = Flight(wanted, options, size)
        self._flights.add(flight)
        flight.start(self._fly(flight, options))
        return flight

    async def _fly(self, flight: Flight, options: RequestOptions) -> Outcome[Answers]:
        wanted = flight.wanted
        try:
            outcome = await self._ask(tuple(wanted.values()), options)
            flight.answers = await _in_turn(len(wanted), _by_digest, wanted, outcome.value)
            if self._cache.enabled:
                await self._keep(flight.answers)
            return outcome
        finally:
            self._flights.remove(flight)

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


def _in_order(digests: Iterable[bytes], answers: Found) -> Answers:
    return tuple(answers[digest] for digest in digests)


def _by_digest(wanted: Wanted, answers: Answers) -> Found:
    return dict(zip(wanted, answers, strict=True))


def _shared(wanted: Wanted, flights: Iterable[Flight]) -> dict[bytes, Flight]:
    return {d: flight for flight in flights for d in wanted if d in flight.wanted}


def _answered(joined: Mapping[bytes, Flight]) -> Found:
    """The answers of the flights that have landed."""
    return {d: flight.answers[d] for d, flight in joined.items() if d in flight.answers}


def _size(wanted: Wanted) -> int:
    return _tokens(wanted.values())


def _tokens(queries: Iterable[LogprobQuery]) -> int:
    return sum(len(query.tokens) + QUERY_TOKENS for query in queries)


def _with_value(outcome: Outcome[Any], value: LogprobResult) -> Outcome[LogprobResult]:
    result: Outcome[LogprobResult] = replace(outcome, value=value)
    return result
