"""A request that waits for calls, its own and those of others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, TypeVarTuple

from app.cache.inflight import Answers, InflightCall
from app.requests.deadline import Deadline
from app.requests.worker_threads import WorkerThreads
from model_runtime import QueryResult, RequestOptions, RequestOutput

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

COSTS = ("computed_tokens", "cached_tokens", "queue_s", "model_s")
"""Of a call: what adds up where a request makes several."""


class Waiter:
    """Begins when it is made.

    Args:
        options: of the request.
        threads: where its queries are gone through; None where the event loop has the time.

    Attributes:
        options: as given.
        deadline: theirs.
        answers: by digest, as far as they are there.
        failed_joins: how often a call of others has failed that it waited for.
        joined: distinct queries that calls of others have answered.
    """

    def __init__(self, options: RequestOptions, threads: WorkerThreads | None) -> None:
        self.options = options
        self.deadline = Deadline(options.deadline)
        self.answers: dict[bytes, QueryResult] = {}
        self.failed_joins = self.joined = 0
        self._outcomes: list[RequestOutput[Answers]] = []
        self._threads = threads
        self._began = time.monotonic()

    async def run(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """What ``work`` returns, which goes through the queries.

        Raises:
            DeadlineExceeded: the time ran out first, perhaps while all threads were taken.
        """
        return await self.deadline.run_before(self.run_for_all(work, *args))

    async def run_for_all(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """The same for whoever waits: however little time this request has left."""
        if self._threads is None:
            return work(*args)
        return await self._threads.run(self.options.priority, work, *args)

    async def wait(self, calls: Iterable[InflightCall], own: InflightCall | None) -> None:
        """Wait for all calls; the failure of its own ends it at once.

        Raises:
            DeadlineExceeded: the time ran out first.
            ChainruleError: what its own call failed with.
        """
        pending = {call.task for call in calls}
        while pending:
            waiting = asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
            _, pending = await self.deadline.run_before(waiting)
            if own is not None and own.task.done():
                own.task.result()

    def take(self, joined: Mapping[bytes, InflightCall], own: InflightCall | None) -> None:
        """Take the answers of calls that have ended; those of others may have failed."""
        before = len(self.answers)
        self.answers |= {d: call.answers[d] for d, call in joined.items() if d in call.answers}
        answered = len(self.answers) - before
        self.joined += answered
        self.failed_joins += answered < len(joined)
        if own is not None:
            self.answers |= own.answers
            self._outcomes.append(own.task.result())

    def outcome(self, keys: Iterable[bytes], hits: int) -> RequestOutput[Answers]:
        """The answers with what they cost. Waiting for calls of others is time of the model."""
        costs = {name: sum(getattr(call, name) for call in self._outcomes) for name in COSTS}
        if self.joined:
            waited = time.monotonic() - self._began - costs["queue_s"]
            costs["model_s"] = max(costs["model_s"], waited)
        value = tuple(self.answers[digest] for digest in keys)
        return RequestOutput(value=value, reused_scores=hits + self.joined, **costs)
