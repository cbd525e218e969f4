"""How long a handler lives: not past its client, not past the drain timeout."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors.table import error_response
from app.http.active_requests import ActiveRequest, CancelReason
from app.http.lifecycle import Lifecycle
from app.http.middleware.authentication import OPEN_PATHS
from model_runtime import EngineStopping

ALWAYS_ANSWERED: Final = OPEN_PATHS | {"/metrics"}
"""What whoever watches a draining server still wants to read."""

_GONE: Final[Message] = {"type": "http.disconnect"}


class CancelOnDisconnect:
    """Counts handlers as in flight, and ends one whose client has left.

    A client that leaves while its request waits would otherwise keep its place in the queue. So
    once the body is complete, a watcher reads on: the next thing to arrive is the disconnect.

        client    body ───────> (end)                         leaves
        handler        reads ─────> awaits the engine ─────────x cancelled
        watcher                 └─> awaits receive() ──────────┘
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
        elif not self._lifecycle.takes_requests:
            await _refuse(scope, receive, send)
        else:
            await self._run(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("this is a bug: a request is handled outside of any task")
        handler = ActiveRequest(task)
        connection = _Connection(handler, receive, send)
        self._lifecycle.active_requests.enter(handler)
        try:
            await self._app(scope, connection.receive, connection.send)
        except asyncio.CancelledError:
            if not handler.owns_cancellation():
                raise
            if handler.cancel_reason is CancelReason.OUT_OF_TIME and not connection.started:
                await _refuse(scope, receive, send)
        finally:
            connection.close()
            self._lifecycle.active_requests.leave(handler)


class _Connection:
    """Stands between handler and client; after the body, only the watcher reads."""

    def __init__(self, handler: ActiveRequest, receive: Receive, send: Send) -> None:
        self._handler = handler
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self.started = False

    async def receive(self) -> Message:
        if self._watcher is not None:
            await self._gone.wait()
        if self._gone.is_set():
            return _GONE
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone.set()
        elif not message.get("more_body", False):
            self._watcher = asyncio.create_task(self._watch(), name="watch-client")
        return message

    async def send(self, message: Message) -> None:
        self.started = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            # The server reports a finished response as a disconnect, too.
            self._handler.answered = True
        await self._send(message)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        self._handler.cancel(CancelReason.CLIENT_LEFT)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    refusal = EngineStopping("the server is shutting down")
    await error_response(refusal, scope["path"])(scope, receive, send)
