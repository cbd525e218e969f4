"""What answers on the port of the metrics: /metrics, to anybody, and nothing else."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors.table import error_response
from app.http.middleware.authentication import METRICS_PATH
from app.http.middleware.head_as_get import HeadAsGet
from app.http.middleware.plain_head import PlainHead
from app.telemetry.metrics import CONTENT_TYPE, Metrics


class MetricsApp:
    """An ASGI app over the metrics of another one. It reads no request's body."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._app: ASGIApp = PlainHead(HeadAsGet(self._answer))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response
        if scope["path"] != METRICS_PATH:
            response = error_response(HTTPException(404), scope["path"])
        elif scope["method"] != "GET":
            refusal = HTTPException(405, headers={"Allow": "GET, HEAD"})
            response = error_response(refusal, scope["path"])
        else:
            response = Response(await self._metrics.scrape(), media_type=CONTENT_TYPE)
        await response(scope, receive, send)
