"""A service of this process, asked as a server is asked: the same answers, the same errors."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from app.client import ApiError, ClientError
from app.client.split.split_score import Answer, split_score
from app.errors.table import error_object, error_row
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse
from app.service import ScoringService
from model_runtime import EngineOverloaded, OutOfMemory

logger = logging.getLogger(__name__)

RETRY_S: Final = 60.0
"""As long what finds no room is brought again."""

WAIT_S: Final = 0.5
"""Between two attempts, where the engine names no time."""


class ServiceClient:
    """What ``ScoreRun`` asks.

    Args:
        service: over an engine that is started.
    """

    def __init__(self, service: ScoringService) -> None:
        self._service = service

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """The answer of POST /v1/score.

        Raises:
            ApiError: with the status, type, code and param that the route would answer.
        """
        give_up = time.monotonic() + RETRY_S
        while True:
            try:
                # The part of a larger piece of work waits where the queue is full.
                return await self._service.for_parts().score(request)
            except (EngineOverloaded, OutOfMemory) as error:
                wait = error.retry_after_s or WAIT_S
                if time.monotonic() + wait > give_up:
                    raise _as_answer(error) from error
            except Exception as error:
                raise _as_answer(error) from error
            await asyncio.sleep(wait)

    async def score_split(
        self, request: ScoreRequest, *, size: int, concurrency: int
    ) -> ScoreResponse:
        """The same, asked for ``size`` candidates at a time, one part after the other."""
        rounds = split_score(request, size)
        try:
            requests = next(rounds)
            while True:
                requests = rounds.send([await self._attempt(one) for one in requests])
        except StopIteration as end:
            answer: ScoreResponse = end.value
            return answer

    async def _attempt(self, request: ScoreRequest) -> Answer:
        try:
            return await self.score(request)
        except ClientError as error:
            return error


def _as_answer(error: Exception) -> ApiError:
    row, about = error_row(error), error_object(error)
    if row.status >= 500:
        logger.warning("a record failed: %s: %s", type(error).__name__, error)
    return ApiError(
        about.message, status=row.status, type=about.type, param=about.param, code=about.code
    )
