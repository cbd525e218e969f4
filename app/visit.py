"""One request's stay in the service: its id, its clock and its deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, TypeVar
from uuid import uuid4

from app.logs import note
from app.schemas.request import Treatment
from app.schemas.response import Timings, Usage
from model_runtime import DeadlineExceeded, ModelInfo, Outcome, Priority, RequestOptions

T = TypeVar("T")


class Visit:
    """Begins when it is made.

    Args:
        request: how it wants to be treated.
        default_timeout_ms: where the request says nothing; None for no limit.
        tenant: whose computation it may share, a name without a slash; empty for everybody's.

    Attributes:
        id: 32 hex digits, new for every request.
        created: unix seconds.
    """

    def __init__(
        self, request: Treatment, default_timeout_ms: int | None, tenant: str = ""
    ) -> None:
        self.id = uuid4().hex
        self.created = int(time.time())
        self._priority = Priority(request.priority)
        self._timeout_ms = request.timeout_ms or default_timeout_ms
        self._cache_salt = _joined_salt(tenant, request.cache_salt)
        self._began = time.perf_counter()
        self._tokenized = self._began

    async def in_time(self, work: Awaitable[T]) -> T:
        """What ``work`` returns. It may wait for a thread; one that runs is never left behind.

        Raises:
            DeadlineExceeded: the time runs out before it returns.
        """
        try:
            async with asyncio.timeout(self._left_s):
                return await work
        except TimeoutError:
            raise DeadlineExceeded("the time ran out before the model was asked") from None

    def after_tokenizing(self) -> RequestOptions:
        """What the engine is told, with the time that is left.

        Raises:
            DeadlineExceeded: none is.
        """
        self._tokenized = time.perf_counter()
        left_s = self._left_s
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded("the time ran out before the model was asked")
        return RequestOptions(self._priority, left_s, self._cache_salt)

    @property
    def _left_s(self) -> float | None:
        if self._timeout_ms is None:
            return None
        return self._timeout_ms / 1000 - (time.perf_counter() - self._began)

    def timings(self, outcome: Outcome[Any]) -> Timings:
        """Where the time went until now, in milliseconds."""
        return Timings(
            queue=1000 * outcome.queue_s,
            tokenize=1000 * (self._tokenized - self._began),
            model=1000 * outcome.model_s,
            total=1000 * (time.perf_counter() - self._began),
        )

    def reply(
        self,
        kind: str,
        info: ModelInfo,
        outcome: Outcome[Any],
        *,
        prompt_tokens: int,
        scored_tokens: int,
    ) -> dict[str, Any]:
        """The fields of ``Reply``; what it cost goes into the access log as well."""
        usage = Usage(
            prompt_tokens=prompt_tokens,
            scored_tokens=scored_tokens,
            cached_tokens=outcome.cached_tokens,
            computed_tokens=outcome.computed_tokens,
            reused_scores=outcome.reused_scores,
        )
        note(**usage.model_dump())
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
