"""Calls and answers in the terms of httpx: what both clients share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import httpx

from app import version
from app.client.call import Call
from app.client.errors import ApiError, ConnectionFailed, InvalidRequest, api_error
from app.client.retry import Retries, retry_after_s
from app.client.session import check_session
from app.client.trace_context import trace_headers
from app.client.url import server_url

CONNECT_S = 10.0
"""Seconds to wait for a connection."""

MAX_CONNECTIONS = 100

_FINAL = (
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
"""Failures that another attempt would only repeat, or make worse."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a client reaches its server. See ``Client``."""

    base_url: str
    api_key: str | None = field(repr=False)
    timeout_s: float
    retries: Retries
    session: str | None = None

    def __post_init__(self) -> None:
        try:
            url = server_url(self.base_url)
        except ValueError as error:
            raise InvalidRequest(f"base_url: {error}", param="base_url") from None
        object.__setattr__(self, "base_url", url)
        key = self.api_key
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise InvalidRequest("api_key: it is empty or cannot be sent", param="api_key")
        if not self.timeout_s > 0:
            raise InvalidRequest("timeout_s: it must be positive", param="timeout_s")
        check_session(self.session)

    def http(self) -> dict[str, Any]:
        """The arguments of an httpx client."""
        key = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        return {
            "base_url": self.base_url,
            "headers": {"User-Agent": f"chainrule/{version()}", **key},
            "limits": httpx.Limits(
                max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS
            ),
        }

    def request(self, call: Call[Any], left_s: float) -> dict[str, Any]:
        """The arguments of ``build_request``."""
        limit_s = max(0.001, min(self.timeout_s, left_s))
        return {
            "method": call.method,
            "url": call.path,
            "content": call.body,
            "headers": {**call.headers, **trace_headers()},
            "timeout": httpx.Timeout(
                limit_s,
                connect=min(CONNECT_S, limit_s),
                # Whoever sends more than there are connections waits for one of their own.
                pool=None if math.isinf(left_s) else max(0.001, left_s),
            ),
        }


def refused(call: Call[Any], response: httpx.Response, body: bytes) -> ApiError:
    """The error that a response tells of."""
    headers = response.headers
    request_id = headers.get("x-request-id", call.request_id)
    return api_error(response.status_code, body, request_id, retry_after_s(headers))


def connection_failed(call: Call[Any], error: httpx.HTTPError) -> ConnectionFailed:
    """A failure on the way."""
    words = str(error) or type(error).__name__
    return ConnectionFailed(
        f"no answer from {_address(error, call)}: {words}",
        is_retryable=isinstance(error, httpx.TransportError) and not isinstance(error, _FINAL),
        request_id=call.request_id,
    )


def _address(error: httpx.HTTPError, call: Call[Any]) -> str:
    try:
        return str(error.request.url.copy_with(userinfo=b""))
    except RuntimeError:  # what httpx raises where there is no request to tell of
        return call.path
