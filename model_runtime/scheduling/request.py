"""A request on its way through the model thread.

::

    new ──> asking ──> in batches ──> answered ──> the search advances ──┬──> outcome
              ^                         │                                │
              ├── the round's others ───┘                                │
              └───────────────────── its next queries ───────────────────┘

Plain state: what a request asks, what it has been told, what it has cost. Who runs when is
decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from model_runtime.batching.batch import QueryProgress, QuerySlice
from model_runtime.batching.trie import fed_tokens
from model_runtime.decoding.base import AnytimeStrategy, Gradual, SearchStrategy, SingleRound
from model_runtime.errors import ChainruleError, ForwardFailed
from model_runtime.types import (
    LogprobQuery,
    LogprobResult,
    QueryResult,
    RequestOptions,
    RequestOutput,
)

STEP_TOKENS = 16
"""Tokens that a search feeds in one step; with more it is served as scoring is."""

QUERIES_AT_ONCE = 2_048
"""Queries of a round that are asked together. The model thread plans and answers each of them in
some 20 microseconds, in which no other request gets on."""


class PendingQuery:
    """A query, and how much of its answer is there. Batches may answer it part by part."""

    __slots__ = ("_rows_so_far", "answer", "work")

    def __init__(self, query: LogprobQuery) -> None:
        self.work = QueryProgress(query, query.score_from)
        self.answer: QueryResult | None = None
        self._rows_so_far = LogprobResult()

    def add_part(self, query_slice: QuerySlice, answer: QueryResult) -> None:
        """Join what a batch answered to what is there; an error ends the query alone."""
        if isinstance(answer, ChainruleError):
            self.answer = answer
            return
        self._rows_so_far = self._rows_so_far.concat(answer)
        self.work = QueryProgress(self.work.query, query_slice.rows.stop)
        if query_slice.complete:
            self.answer = self._rows_so_far


@dataclass(slots=True)
class Usage:
    """What a request has cost so far. Fields as in ``RequestOutput``; ``first_forward`` is a time
    of the monotonic clock."""

    computed_tokens: int = 0
    cached_tokens: int = 0
    first_forward: float | None = None


class EngineRequest:
    """One admitted request. All of it belongs to the model thread, except ``cancelled``.

    Args:
        strategy: the search, which asks and is told.
        options: priority and deadline.
        arrival: the clock's seconds at submission.

    Attributes:
        gone: nobody waits for the outcome any more; the event loop sets it, once.
        is_waiting: no forward has held a part of it yet; any thread may ask.
        observer: that of the options.
        was_held: a forward has held a part of it, if only one that failed.
        can_give: it may have an outcome, if not the final one, when its time runs out.
        asks: the queries of the present round, of many ``QUERIES_AT_ONCE`` at a time.
        usage: what it has cost so far.
    """

    def __init__(
        self, strategy: SearchStrategy[object], options: RequestOptions, arrival: float
    ) -> None:
        self.strategy = strategy
        self.cost = strategy.cost
        self.priority = options.priority
        self.arrival = arrival
        self.cache_salt = options.cache_salt
        self.observer = options.observer
        self.was_held = False
        self.deadline = math.inf if options.deadline is None else options.deadline
        self.cancelled = False
        self.is_waiting = True
        self.is_anytime = isinstance(strategy, AnytimeStrategy)
        self._gradual = strategy if isinstance(strategy, Gradual) else None
        self.asks: list[PendingQuery] = []
        self._unasked: Iterator[LogprobQuery] = iter(())
        self._answers: list[QueryResult] = []
        self._reading: Iterator[None] | None = None
        self.usage = Usage()
        self._rounds = 0
        self._first_round_tokens = 0
        self._asked_tokens = 0

    @property
    def open_asks(self) -> list[PendingQuery]:
        """Queries that are asked and not answered."""
        return [ask for ask in self.asks if ask.answer is None]

    @property
    def is_reading(self) -> bool:
        """The search has been told answers and is not through with them."""
        return self._reading is not None

    @property
    def expected_tokens(self) -> int:
        """About how many tokens the present round still feeds.

        After the first round a search feeds what it has just generated: a token a query.
        """
        if self._rounds == 1:
            return max(1, self._first_round_tokens - self.usage.computed_tokens)
        return max(1, sum(_rows(ask.work.query) for ask in self.open_asks))

    @property
    def remaining_tokens(self) -> int:
        """Of its cost, what was not fed yet. Any thread may ask."""
        return max(0, self.cost - self.usage.computed_tokens)

    @property
    def decode_tokens(self) -> int:
        """Tokens of the next step of a running search; 0 of whoever is in its first round.

        A round of many tokens is no step: it takes long by itself, and may be answered in parts.
        """
        count = sum(_rows(ask.work.query) for ask in self.open_asks) if self._rounds > 1 else 0
        return count if count <= STEP_TOKENS else 0

    @property
    def lost_cached_work(self) -> bool:
        """More was fed than all of it costs: what it had computed was evicted in between.

        A search whose budget exceeds its cost has overrun once it was fed more than it asked.
        """
        return self.usage.computed_tokens > max(self.cost, self._asked_tokens)

    def virtual_deadline(self, seconds_per_token: float) -> float:
        """When this request should have been served; the earliest goes first.

        Short work is due soon after it arrived. Work that was given tokens is due later by as
        many, so a large request yields after each of its chunks, and yet its age counts.
        """
        tokens = self.cost + self.usage.computed_tokens
        return min(self.deadline, self.arrival + seconds_per_token * tokens)

    def add_usage(self, computed_tokens: int, began: float) -> None:
        """Add a forward that held a part of this request and began at ``began``."""
        usage = self.usage
        usage.computed_tokens += computed_tokens
        if usage.first_forward is None:
            usage.first_forward = began

    def advance(self, now: float) -> RequestOutput[object] | None:
        """Tell the search its answers and let it ask on; the outcome once it is done.

        To be called when no query is open, and again where none is open afterwards. Raises
        whatever the search raises.
        """
        if self._ask_on() or not self._tell():
            return None
        if self.strategy.done:
            return self._outcome(now)
        self._ask()
        return None

    def finish_early(self, now: float) -> RequestOutput[object] | None:
        """The outcome as it is; None where there is none yet. The job ends either way.

        Not to be called while it ``is_reading``.
        Raises whatever the search raises.
        """
        if not isinstance(self.strategy, AnytimeStrategy):
            return None
        if not self.open_asks and not self._ask_on():
            while not self._tell():
                pass
        return self._outcome(now) if self.strategy.done or self.strategy.finish_early() else None

    def _tell(self) -> bool:
        """Tell the search its answers; False where it has not read all of them yet."""
        if self._rounds == 1:
            self.usage.cached_tokens = max(0, self._first_round_tokens - self.usage.computed_tokens)
        if not self._rounds:
            return True
        if self._reading is None:
            answers, self._answers = self._answers, []
            if self._gradual is None:
                self.strategy.advance(answers)
                return True
            self._reading = self._gradual.advance_gradually(answers)
        for _ in self._reading:
            return False
        self._reading = None
        return True

    def _ask(self) -> None:
        queries = self.strategy.queries()
        if not queries:
            raise ForwardFailed("the search is not done and asks nothing: this is a bug in it")
        if not self._rounds:
            # Whoever asks once has counted already, and it may be thousands of long paths.
            self._first_round_tokens = (
                self.strategy.fed_tokens
                if isinstance(self.strategy, SingleRound)
                else fed_tokens(queries)
            )
        self._asked_tokens += sum(map(_rows, queries)) if self._rounds else self._first_round_tokens
        self._rounds += 1
        self._unasked = iter(queries)
        self._ask_on()

    def _ask_on(self) -> bool:
        """Ask the next queries of the round, once the former ones are answered; False: no more."""
        self._answers += [ask.answer for ask in self.asks if ask.answer is not None]
        queries = islice(self._unasked, QUERIES_AT_ONCE)
        self.asks = [PendingQuery(self._salted(query)) for query in queries]
        return bool(self.asks)

    def _salted(self, query: LogprobQuery) -> LogprobQuery:
        """The query under the request's own salt; here, so that no search can forget it."""
        own = self.cache_salt
        if not own and not query.cache_salt:
            return query
        # The length says where the first ends, so that no two pairs have the same salt.
        return replace(query, cache_salt=f"{len(own)}:{own}{query.cache_salt}")

    def _outcome(self, now: float) -> RequestOutput[object]:
        usage = self.usage
        began = now if usage.first_forward is None else usage.first_forward
        return RequestOutput(
            value=self.strategy.result(),
            computed_tokens=usage.computed_tokens,
            cached_tokens=usage.cached_tokens,
            queue_s=began - self.arrival,
            model_s=now - began,
        )


def _rows(query: LogprobQuery) -> int:
    """Tokens that a query feeds at least: those whose rows it asks."""
    return query.last_row + 1 - query.score_from
