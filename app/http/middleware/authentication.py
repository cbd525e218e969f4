"""Deny by default: without a valid API key nothing answers but health and the page's files."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors.table import Unauthorized, error_response

METRICS_PATH: Final = "/metrics"
OPEN_PATHS: Final = frozenset({"/health", "/health/live", "/health/ready", "/playground", "/docs"})
"""Answered to anybody. Compared whole, so no other spelling of a path slips through."""
OPEN_FOLDER: Final = "/static/"
"""The files of pages, the same for everybody; nothing else lies below it."""


def open_paths(*, open_metrics: bool) -> frozenset[str]:
    """What is answered without a key, beside files."""
    return OPEN_PATHS | {METRICS_PATH} if open_metrics else OPEN_PATHS


class Authentication:
    """Lets a request pass that carries one of the keys as ``Authorization: Bearer``.

    Only digests are compared, each in constant time and all of them every time, so neither a
    key's length nor a common prefix shows in the timing. Without keys everybody may pass.

    Args:
        keys: all that are valid.
        open_metrics: whether /metrics is answered to anybody, too.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], *, open_metrics: bool = False) -> None:
        self._app = app
        self._open_paths = open_paths(open_metrics=open_metrics)
        self._digests = tuple(_digest(key.encode()) for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope["path"]) or self._may_pass(scope):
            await self._app(scope, receive, send)
            return
        refusal = Unauthorized("A valid API key is needed: Authorization: Bearer <key>.")
        await error_response(refusal, scope["path"])(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open_paths or path.startswith(OPEN_FOLDER)

    def _may_pass(self, scope: Scope) -> bool:
        if not self._digests:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        presented = _digest(key.strip())
        matches = [hmac.compare_digest(presented, digest) for digest in self._digests]
        return any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
