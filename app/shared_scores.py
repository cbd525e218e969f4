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
from typing import Any

from app.flight import Flight
from app.query_digest import query_digests
from app.score_cache import ScoreCache
from app.stay import Stay
from model_runtime import (
    Answer,
    ChainruleError,
    LogprobQuery,
    LogprobResult,
    Outcome,
    RequestOptions,
)

Answers = tuple[Answer, ...]
Ask = Callable[[Sequence[LogprobQuery], RequestOptions], Awaitable[Outcome[Answers]]]
Wanted = dict[bytes, LogprobQuery]

TOKENS_ON_LOOP = 100_000
"""Tokens of a request whose digests are made on the event loop; it takes about a millisecond."""

QUERY_TOKENS = 500
"""A query costs as much as so many tokens, however short it is."""

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
        self._in_flight: dict[bytes, Flight] = {}

    @property
    def in_flight(self) -> int:
        """Distinct queries that are being asked."""
        return len(self._in_flight)

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
        while missing := _without(wanted, answers):
            answers |= await self._asked(missing, stay)
        self._cache.note_shared(stay.joined)
        return stay.outcome(tuple(answers[digest] for digest in digests), hits + stay.joined)

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
        if _size(queries) > TOKENS_ON_LOOP:
            return await asyncio.to_thread(self._identify, queries, salt)
        return self._identify(queries, salt)

    def _identify(self, queries: Sequence[LogprobQuery], salt: str) -> tuple[list[bytes], Wanted]:
        digests = query_digests(self._fingerprint, salt, queries)
        return digests, dict(zip(digests, queries, strict=True))

    async def _kept(self, wanted: Wanted) -> dict[bytes, Answer]:
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

    async def _asked(self, missing: Wanted, stay: Stay) -> dict[bytes, Answer]:
        """Ask what nobody asks, wait for all; without what others asked in vain."""
        joined = self._joinable(missing, stay)
        rest = _without(missing, joined)
        own = self._depart(rest, stay) if rest else None
        flights = {*joined.values(), *([] if own is None else [own])}
        for flight in flights:
            flight.board()
        try:
            await stay.until_landed(flights, own)
        finally:
            for flight in flights:
                if flight.leave():
                    self._unlist(flight)
        found = {d: joined[d].answers[d] for d in joined if d in joined[d].answers}
        stay.joined += len(found)
        stay.disappointments += len(found) < len(joined)
        if own is not None:
            stay.outcomes.append(own.task.result())
            found |= own.answers
        return found

    def _joinable(self, missing: Wanted, stay: Stay) -> dict[bytes, Flight]:
        if not self._in_flight or stay.disappointments == MOST_DISAPPOINTMENTS:
            return {}
        size = _size(missing.values())
        flights = ((digest, self._in_flight.get(digest)) for digest in missing)
        return {d: flight for d, flight in flights if flight and flight.suits(stay.options, size)}

    def _depart(self, wanted: Wanted, stay: Stay) -> Flight:
        """Ask; others may join from now on."""
        options = stay.options_now()
        flight = Flight(wanted, options, _size(wanted.values()))
        self._in_flight.update(dict.fromkeys(wanted, flight))
        flight.start(self._fly(flight, tuple(wanted.values()), options))
        return flight

    async def _fly(
        self, flight: Flight, queries: tuple[LogprobQuery, ...], options: RequestOptions
    ) -> Outcome[Answers]:
        try:
            outcome = await self._ask(queries, options)
            flight.land(outcome.value)
            if self._cache.enabled:
                await self._keep(flight.answers)
            return outcome
        finally:
            self._unlist(flight)

    async def _keep(self, answers: Mapping[bytes, Answer]) -> None:
        for count, (digest, answer) in enumerate(answers.items(), 1):
            if isinstance(answer, LogprobResult):
                self._cache.put(digest, answer)
            if count % QUERIES_AT_A_TIME == 0:
                await asyncio.sleep(0)

    def _unlist(self, flight: Flight) -> None:
        """Nobody joins it any more; whoever waits goes on waiting."""
        for digest in flight.digests:
            if self._in_flight.get(digest) is flight:
                del self._in_flight[digest]


def _without(wanted: Wanted, there: Mapping[bytes, object]) -> Wanted:
    if not there:
        return wanted
    return {digest: query for digest, query in wanted.items() if digest not in there}


def _size(queries: Iterable[LogprobQuery]) -> int:
    return sum(len(query.tokens) + QUERY_TOKENS for query in queries)


def _with_value(outcome: Outcome[Any], value: LogprobResult) -> Outcome[LogprobResult]:
    result: Outcome[LogprobResult] = replace(outcome, value=value)
    return result
