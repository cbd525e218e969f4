"""``chainrule serve`` with a route that counts asyncio's tasks and, at will, a planted leak.

    python -m tests.soak.observed_server LEAK_BYTES serve --port 0

Every request leaves ``LEAK_BYTES`` behind; 0 makes it the server as it is.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.cli import main
from app.environment import let_idle_threads_sleep

TASKS = "/test/tasks"


class Leaky:
    """Keeps some bytes of every request for ever."""

    def __init__(self, app: ASGIApp, size: int) -> None:
        self._app = app
        self._size = size
        self._kept: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._kept.append(b"x" * self._size)  # written to, so that it is resident
        await self._app(scope, receive, send)


async def count_tasks(_request: Request) -> PlainTextResponse:
    """How many tasks there are beside the one that asks."""
    return PlainTextResponse(str(len(asyncio.all_tasks()) - 1))


def observe(leak: int) -> None:
    """Let the server make its app with the route, and with the leak."""
    let_idle_threads_sleep()  # takes effect before torch is there, which the next line brings
    from app import server

    create = server.create_app

    def create_app(*args: Any, **kwargs: Any) -> FastAPI:
        app = create(*args, **kwargs)
        app.add_route(TASKS, count_tasks)
        if leak:
            app.add_middleware(Leaky, size=leak)
        return app

    server.create_app = create_app


if __name__ == "__main__":
    observe(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
