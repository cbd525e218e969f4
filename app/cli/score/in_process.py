"""A model in this process, asked as a server would be, without HTTP in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from app.cache.score_cache import ScoreCache
from app.client import ApiError, ClientError
from app.errors.table import RequestRefused, error_object, error_row
from app.requests.limits import Limits
from app.schemas.models import ModelCard
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse
from app.service import ScoringService
from app.settings import Settings, log_ignored_variables
from app.telemetry.logs import configure_logging
from model_runtime import ChainruleError, Engine, EngineOverloaded, ModelLoadError


class LocalScorer:
    """The service as ``Scorer``: what it raises is what a client would have raised."""

    def __init__(self, service: ScoringService) -> None:
        self._service = service

    async def score(self, request: ScoreRequest, /) -> ScoreResponse:
        """The answer; waits while the queue is full."""
        while True:
            try:
                return await self._service.score(request)
            except EngineOverloaded as error:
                await asyncio.sleep(error.retry_after_s)
            except (ChainruleError, RequestRefused) as error:
                raise _as_a_client_sees_it(error) from error


@asynccontextmanager
async def local_scorer(
    settings: Settings, engine: Engine | None = None
) -> AsyncGenerator[tuple[LocalScorer, ModelCard], None]:
    """Load a model, and let it go in the end.

    Args:
        settings: what to load, and within which bounds.
        engine: one that is loaded already.

    Raises:
        ClientError: it cannot be loaded.
    """
    configure_logging("warning", "text")
    log_ignored_variables()
    try:
        found = engine
        if found is None:
            found = await asyncio.to_thread(Engine.load, settings.engine_config())
    except ModelLoadError as error:
        raise ClientError(str(error)) from error
    limits = Limits(
        max_candidates=settings.max_candidates,
        max_top_logprobs=settings.max_top_logprobs,
        default_timeout_ms=settings.default_timeout_ms,
    )
    await found.start()
    try:
        cache = ScoreCache(int(settings.score_cache_bytes))
        service = ScoringService(found, limits, cache)
        (card,) = service.models().data
        yield LocalScorer(service), card
    finally:
        await found.stop(0.0)


def _as_a_client_sees_it(error: Exception) -> ApiError:
    seen = error_object(error)
    return ApiError(
        seen.message,
        status=error_row(error).status,
        type=seen.type,
        param=seen.param,
        code=seen.code,
    )
