"""What is known of one request while it is answered: its id, its deadline, what it cost."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from app.requests.deadline import Deadline
from app.schemas.request import ServingOptions
from app.schemas.response import Timings, Usage
from app.telemetry.request_trace import current_trace
from model_runtime import ModelInfo, Priority, RequestOptions, RequestOutput


class RequestContext:
    """Begins when it is made.

    Args:
        request: how it wants to be treated.
        deadline: when its time is over.
        tenant: whose computation it may share, a name without a slash; empty for everybody's.
        parent: names the request of which this is a part and which waits where the queue is full;
            empty: this one is refused there.

    Attributes:
        deadline: as given; see ``search_ended``.
        options: what the engine is told.
        priority: the request's class of service.
        id: 32 hex digits, new for every request.
        created: unix seconds.
    """

    def __init__(
        self, request: ServingOptions, deadline: Deadline, tenant: str = "", parent: str = ""
    ) -> None:
        self.deadline = deadline
        self.id = uuid4().hex
        self.created = int(time.time())
        self.priority = Priority(request.priority)
        trace = current_trace.get()
        self._observer = None if trace is None else trace.observe_call()
        self.options = RequestOptions(
            self.priority,
            deadline.at,
            _joined_salt(tenant, request.cache_salt),
            on_full="wait" if parent else "refuse",
            parent=parent,
            observer=self._observer,
        )
        self._began = time.perf_counter()
        self._tokenized = self._began

    def engine_options(self) -> RequestOptions:
        """What the engine is told, now that it is asked.

        Raises:
            DeadlineExceeded: no time is left.
        """
        self._tokenized = time.perf_counter()
        self.deadline.check()
        if self._observer is not None:
            self._observer.asked()
        return self.options

    def search_ended(self) -> None:
        """A search has ended that tells what it has found by the deadline: where that has passed,
        the answer is put together all the same."""
        if self.deadline.passed:
            self.deadline = Deadline(None)

    def timings(self, outcome: RequestOutput[Any]) -> Timings:
        """Where the time went until now, in milliseconds."""
        return Timings(
            queue=1000 * outcome.queue_s,
            tokenize=1000 * (self._tokenized - self._began),
            model=1000 * outcome.model_s,
            total=1000 * (time.perf_counter() - self._began),
        )

    def response_fields(
        self,
        kind: str,
        info: ModelInfo,
        outcome: RequestOutput[Any],
        *,
        prompt_tokens: int,
        scored_tokens: int,
    ) -> dict[str, Any]:
        """The fields of ``BaseResponse``."""
        usage = Usage(
            prompt_tokens=prompt_tokens,
            scored_tokens=scored_tokens,
            cached_tokens=outcome.cached_tokens,
            computed_tokens=outcome.computed_tokens,
            reused_scores=outcome.reused_scores,
        )
        return {
            "id": f"{kind}-{self.id}",
            "created": self.created,
            "model": info.name,
            "fingerprint": info.fingerprint,
            "numeric_error": info.numeric_error and info.numeric_error[0],
            "usage": usage,
            "timings_ms": self.timings(outcome),
        }


def _joined_salt(tenant: str, cache_salt: str) -> str:
    """One salt of two, from which both can be read, so that no two pairs have the same."""
    return f"{tenant}/{cache_salt}" if tenant or cache_salt else ""
