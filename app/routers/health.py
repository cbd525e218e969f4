"""Is it alive, is it ready, and what is it doing. Answered without a key, and while draining."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response

from app import version
from app.dependencies import LifecycleDependency, MetricsDependency
from app.errors.table import ERROR_RESPONSES, NOT_READY_RETRY_S
from app.http.lifecycle import Phase
from app.schemas.response import OmitNone, ResponseModel
from app.telemetry.metrics import CONTENT_TYPE

router = APIRouter(
    tags=["health"], responses={status: ERROR_RESPONSES[status] for status in (413, 500)}
)


class Health(ResponseModel):
    """The answer to a probe."""

    status: Literal["ok", "unavailable"]
    reason: OmitNone[str] = None
    """Why no work is taken."""


class QueueReport(ResponseModel):
    """What waits and runs at this moment."""

    queued_requests: int
    """Requests admitted and not finished."""
    queued_tokens: int
    """Tokens that take room in the queue."""
    queued_seconds: float
    """About how long all of it will take."""
    waiting_requests: int
    """Those of which no forward has held a part yet: some of these, and all that are not admitted
    yet, as their texts become tokens or there is no room."""
    running_requests: int
    """Those that a forward has held, and that are not finished."""


class HealthReport(ResponseModel):
    """The server in one object."""

    status: Literal["loading", "ready", "draining", "stopped", "failed"]
    model: OmitNone[str] = None
    """The served model's name; absent until it is loaded."""
    queue: QueueReport


class Version(ResponseModel):
    """Which release answers."""

    version: str


@router.get("/version", responses={401: ERROR_RESPONSES[401]})
async def get_version() -> Version:
    """The release that answers, whether a model is loaded or not."""
    return Version(version=version())


@router.get("/health/live", responses={503: {"model": Health}})
async def live(lifecycle: LifecycleDependency, response: Response) -> Health:
    """Whether to keep this process: 503 once the engine is dead, or was given up as hanging."""
    return _probe(lifecycle.is_alive, response)


@router.get("/health/ready", responses={503: {"model": Health}})
async def ready(lifecycle: LifecycleDependency, response: Response) -> Health:
    """Whether to send work here: 503 until a real forward has passed, while draining, and while
    the model makes no progress. While it is loaded, ``Retry-After`` says when to ask again."""
    if lifecycle.phase is Phase.LOADING:
        response.headers["Retry-After"] = str(NOT_READY_RETRY_S)
    reason = lifecycle.not_ready_reason
    return _probe(reason is None, response, reason)


@router.get("/health", responses={503: {"model": HealthReport}})
async def health(lifecycle: LifecycleDependency, response: Response) -> HealthReport:
    """What the server is doing; 503 wherever ``/health/ready`` would be."""
    response.status_code = 200 if lifecycle.is_ready else 503
    stats = lifecycle.stats()
    return HealthReport(
        status=lifecycle.phase.value,
        model=lifecycle.model_name,
        queue=QueueReport(
            queued_requests=stats.queued_requests,
            queued_tokens=stats.queued_tokens,
            queued_seconds=round(stats.queued_seconds, 3),
            waiting_requests=stats.waiting_requests,
            running_requests=stats.running_requests,
        ),
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, 401: ERROR_RESPONSES[401]},
)
async def metrics(source: MetricsDependency) -> Response:
    """Counters and gauges in Prometheus' text format."""
    return Response(await source.scrape(), media_type=CONTENT_TYPE)


def _probe(passed: bool, response: Response, reason: str | None = None) -> Health:
    response.status_code = 200 if passed else 503
    return Health(status="ok" if passed else "unavailable", reason=reason)
