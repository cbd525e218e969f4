"""A request that waits for calls, its own and those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from app.cache.inflight_call import InflightCall
from app.requests.deadline import Deadline
from model_runtime import DeadlineExceeded, QueryResult, RequestOptions, RequestOutput

Answers = tuple[QueryResult, ...]


class Waiter:
    """Begins when it is made, on the event loop.

    Attributes:
        options: as given.
        deadline: theirs.
        outcomes: of the calls that it started.
        joined: distinct queries that calls of others have answered.
        failed_joins: how often such a call has failed.
    """

    def __init__(self, options: RequestOptions) -> None:
        self.options = options
        self.outcomes: list[RequestOutput[Answers]] = []
        self.joined = 0
        self.failed_joins = 0
        self.deadline = Deadline(options.deadline)
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()

    async def wait(self, calls: Iterable[InflightCall], own: InflightCall | None) -> None:
        """Wait for all calls; the failure of its own ends it at once.

        Raises:
            DeadlineExceeded: the time ran out first.
            ChainruleError: what its own call failed with.
        """
        pending = {call.task for call in calls}
        while pending:
            left_s = self.deadline.left_s
            done, pending = await asyncio.wait(
                pending,
                timeout=None if left_s is None else max(0.0, left_s),
                return_when=asyncio.FIRST_EXCEPTION,
            )
            if own is not None and own.failed:
                own.task.result()
            if pending and not done:
                raise DeadlineExceeded("the request's time ran out")

    def outcome(self, answers: Answers, reused: int) -> RequestOutput[Answers]:
        """The answers with what they cost. Waiting for calls of others is time of the model."""
        own = self.outcomes
        queue_s = sum(outcome.queue_s for outcome in own)
        model_s = sum(outcome.model_s for outcome in own)
        if self.joined:
            model_s = max(model_s, self._clock() - self._began - queue_s)
        return RequestOutput(
            value=answers,
            computed_tokens=sum(outcome.computed_tokens for outcome in own),
            cached_tokens=sum(outcome.cached_tokens for outcome in own),
            queue_s=queue_s,
            model_s=model_s,
            reused_scores=reused,
        )
