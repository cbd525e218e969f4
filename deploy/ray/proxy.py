"""What stands before Serve's HTTP proxy, in its process: a key for the router, and another try.

Ray calls ``middlewares`` in each proxy when it is started with
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deploy.ray.proxy:middlewares``.

The key: where a request has no usable ``X-Session-Id``, its body is read and the hash of its
context set in its place (see ``affinity``).

Another try: Serve itself sends a request again that a replica has not accepted. One that was
accepted by a replica that then dies ends without an answer, which Serve turns into an empty 500.
Here such a request is sent once more. That is safe, as no route changes anything and all replicas
give the same bits; and it is once, as a request that its replica died of must not kill them all.
Whoever has begun to get an answer sees it break off: half an answer cannot be taken back.

    client ──> this ──> Serve's proxy ──> router ──> replica        first try
                 │                                      x dies before the answer begins
                 └────> Serve's proxy ──> router ──> another        second and last
                                                        x dies, too: 503, Retry-After: 1
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors.table import error_response
from app.schemas.bounds import MAX_BODY_BYTES
from deploy.ray.affinity import MAX_HASHED_BYTES, context_key, session_of
from model_runtime import EngineUnavailable

logger = logging.getLogger("ray.serve")

TRIES: Final = 2
MAX_KEPT_BYTES: Final = MAX_BODY_BYTES
"""Of a body; a longer one is not kept, and so not sent again."""
MAX_KEPT_TOGETHER: Final = 64 << 20
"""Bytes of all bodies that one proxy keeps; what comes beyond it is not kept, and so not sent
again."""
READ_TIMEOUT_S: Final = 5.0
"""In which a body must come to be hashed. A slower one is passed on as it comes."""
RETRY_AFTER_S: Final = 1

_READ_BY_SERVE: Final = (b"x-request-id", b"x-session-id", b"serve-multiplexed-model-id")

Headers = list[tuple[bytes, bytes]]


def middlewares() -> list[Middleware]:
    """Called by Ray in each HTTP proxy."""
    return [Middleware(PrefixProxy)]


class PrefixProxy:
    """Plain ASGI around Serve's proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept = Kept()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._kept)
        try:
            await self._pass_on(scope, body, send)
        finally:
            body.let_go()

    async def _pass_on(self, scope: Scope, body: _Body, send: Send) -> None:
        headers = await _with_session(scope, body)
        answer = _Answer(send, body)
        for number in range(1, TRIES + 1):
            # Serve changes the scope, a copy for each.
            await self._app({**scope, "headers": [*headers]}, body.replay(), answer.send)
            if answer.started or body.client_left or not body.kept:
                break
            logger.warning("no answer from the replica at try %d of %d", number, TRIES)
        if not (answer.started or body.client_left):
            refusal = error_response(EngineUnavailable("no answer"), scope["path"])
            refusal.headers["Retry-After"] = str(RETRY_AFTER_S)
            await refusal(scope, body.replay(), send)


async def _with_session(scope: Scope, body: _Body) -> Headers:
    """The request's headers with a session that the router can use, or with none."""
    headers = [pair for pair in scope["headers"] if _is_harmless(*pair)]
    if session_of(headers) is not None:
        return headers
    headers = [pair for pair in headers if _plain(pair[0]) != b"x-session-id"]
    if scope["method"] == "POST":
        key = context_key(await body.head(READ_TIMEOUT_S))
        if key is not None:
            headers.append((b"x-session-id", key.encode()))
    return headers


def _is_harmless(name: bytes, value: bytes) -> bool:
    # Serve reads these as UTF-8, and fails at anything else. The app ignores them then.
    return value.isascii() or _plain(name) not in _READ_BY_SERVE


def _plain(name: bytes) -> bytes:
    # Serve takes x_session_id for the same header.
    return name.lower().replace(b"_", b"-")


class Kept:
    """What the bodies of one proxy's requests take together.

    Attributes:
        bytes: of those that are kept.
    """

    def __init__(self) -> None:
        self.bytes = 0


class _Body:
    """A request's body on its way, kept until its answer begins, so that it can be read again.

    Attributes:
        kept: whether all that has arrived is still here.
        client_left: the client has hung up.
    """

    def __init__(self, receive: Receive, together: Kept) -> None:
        self._receive = receive
        self._together = together
        self._messages: list[Message] = []
        self._bytes = 0
        self._complete = False
        self._passed_on = False
        self.kept = True
        self.client_left = False

    async def head(self, timeout_s: float) -> bytes:
        """What has arrived of the body at its end, after ``MAX_HASHED_BYTES``, or in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._has_head():
                    await self._next()
        except TimeoutError:
            pass
        return b"".join(message.get("body", b"") for message in self._messages)

    def _has_head(self) -> bool:
        return self._bytes >= MAX_HASHED_BYTES or self._complete or self.client_left

    def replay(self) -> Receive:
        """An ASGI ``receive`` that begins with what has arrived already."""
        messages = deque(self._messages)
        self._passed_on = True
        if not self.kept:
            self._messages.clear()

        async def receive() -> Message:
            return messages.popleft() if messages else await self._next()

        return receive

    def let_go(self) -> None:
        """Keep nothing of it any more: it will not be sent again."""
        if self.kept:
            self.kept = False
            self._together.bytes -= self._bytes
        if self._passed_on:
            self._messages.clear()

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.client_left = True
            return message
        size = len(message.get("body", b""))
        self._bytes += size
        self._complete = not message.get("more_body", False)
        if self.kept:
            self._together.bytes += size
        if self._bytes > MAX_KEPT_BYTES or self._together.bytes > MAX_KEPT_TOGETHER:
            self.let_go()
        if self.kept or not self._passed_on:
            self._messages.append(message)
        return message


class _Answer:
    """Remembers whether an answer has begun, and takes out what Serve has put into it."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send = send
        self._body = body
        self.started = False

    async def send(self, message: Message) -> None:
        self.started = True
        self._body.let_go()
        if message["type"] == "http.response.start":
            message = {**message, "headers": _one_request_id(message.get("headers", ()))}
        await self._send(message)


def _one_request_id(headers: object) -> Headers:
    """The headers with the first ``X-Request-Id``, the app's own; Serve adds another."""
    found: Headers = []
    seen = False
    for name, value in headers:  # type: ignore[attr-defined]  # ASGI's pairs
        of_request = name.lower() == b"x-request-id"
        if not (of_request and seen):
            found.append((name, value))
        seen = seen or of_request
    return found
