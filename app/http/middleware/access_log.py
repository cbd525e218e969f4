"""The outermost layer: what every request is called, and what is said about it afterwards."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors.table import error_response
from app.http.lifecycle import Lifecycle
from app.http.middleware.authentication import OPEN_PATHS
from app.requests.deadline import now
from app.telemetry.logs import request_scope
from app.telemetry.metrics import Metrics
from app.telemetry.request_facts import open_facts

logger = logging.getLogger("app.access")

Headers = tuple[tuple[bytes, bytes], ...]

CLIENT_LEFT: Final = 499
"""Logged where the client was gone before the end of its answer; never sent."""

BROKEN_OFF: Final = 500
"""Logged where half an answer was out when it failed, whatever status that half began with."""

_SANE_ID: Final = frozenset(
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:/+=~@"
)
_MAX_ID_BYTES: Final = 128
_OTHER_NAMES: Final = {
    "/v1/systemone": b"x-typesafe-request-id",
    "/v1/models": b"x-typesafe-request-id",
}
"""What clients of some paths read the request's id from, beside ``x-request-id``."""
_QUIET: Final = OPEN_PATHS | {"/metrics"}


class AccessLog:
    """Request id, access log, request metrics, and 500 for what nobody expected.

    Args:
        metrics: told of each request.
        lifecycle: knows what further headers every answer carries.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._app = app
        self._metrics = metrics
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = _request_id(scope)
        answer = _Answer(send, _id_headers(scope, request_id), self._lifecycle)
        began = time.perf_counter()
        facts = open_facts(scope)
        scope["state"]["arrived"] = now()
        with request_scope(request_id):
            try:
                await self._run(scope, receive, answer)
            finally:
                self._tell(scope, answer.status, time.perf_counter() - began, facts)

    async def _run(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            pass
        except Exception as exc:
            logger.exception("unexpected failure")
            if answer.started:
                # Half an answer is out: leaving it unfinished makes the server cut the connection.
                answer.status = BROKEN_OFF
                return
            await error_response(exc, scope["path"])(scope, receive, answer.send)

    def _tell(self, scope: Scope, status: int, seconds: float, facts: Mapping[str, object]) -> None:
        route = self._metrics.route_of(scope)
        self._metrics.observe_request(scope["method"], route, status, seconds)
        self._metrics.observe_facts(route, facts)
        if isinstance(code := facts.get("error"), str):
            self._metrics.observe_error(status, code)
        level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
        if logger.isEnabledFor(level):
            line = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
            }
            logger.log(level, "request", extra={**facts, **line})


class _Answer:
    """Remembers how far the response got, and puts on it what all answers carry.

    Attributes:
        started: a part of it is out.
        status: what is logged: the response's own once all of it is out.
    """

    def __init__(self, send: Send, id_headers: Headers, lifecycle: Lifecycle) -> None:
        self._send = send
        self._id_headers = id_headers
        self._lifecycle = lifecycle
        self._begun_with = CLIENT_LEFT
        self.started = False
        self.status = CLIENT_LEFT

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._begun_with = message["status"]
            own = (*self._id_headers, *self._lifecycle.headers)
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        elif not message.get("more_body", False):
            self.status = self._begun_with
        await self._send(message)


def _id_headers(scope: Scope, request_id: str) -> Headers:
    names = (b"x-request-id", _OTHER_NAMES.get(scope["path"]))
    return tuple((name, request_id.encode("ascii")) for name in names if name is not None)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    if 0 < len(given) <= _MAX_ID_BYTES and _SANE_ID.issuperset(given):
        return bytes(given).decode("ascii")
    return uuid.uuid4().hex
