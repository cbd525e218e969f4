"""``chainrule serve`` with routes that count asyncio's tasks and allocated bytes, and plant a leak.

python -m tests.soak.observed_server serve --port 0
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.cli.main import main
from app.environment import let_idle_threads_sleep

TASKS = "/test/tasks"
LEAK = "/test/leak"
ALLOCATED = "/test/allocated"


class _Mallinfo2(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns (malloc.h)."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names.split())


class Leaky:
    """Once it is told to, keeps some bytes of every request for ever."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (size := scope["app"].state.leak):
            self._kept.append(b"x" * size)  # written to, so that it is resident
        await self._app(scope, receive, send)


async def count_tasks(_request: Request) -> PlainTextResponse:
    """How many tasks there are beside the one that asks."""
    return PlainTextResponse(str(len(asyncio.all_tasks()) - 1))


async def count_allocated(_request: Request) -> PlainTextResponse:
    """Bytes that are allocated and not freed, in all of the C library's arenas and mappings.

    What is resident hides a small leak for long: it goes into memory that was freed and kept.
    """
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo2
    found = mallinfo()
    return PlainTextResponse(str(found.uordblks + found.hblkhd))


async def plant_leak(request: Request) -> PlainTextResponse:
    """From now on every request leaves so many bytes behind."""
    request.app.state.leak = int(await request.body())
    return PlainTextResponse("")


def observe() -> None:
    """Let the server make its app with these routes."""
    let_idle_threads_sleep()  # takes effect before torch is there, which the next line brings
    from app import server

    create = server.create_app

    def create_app(*args: Any, **kwargs: Any) -> FastAPI:
        app = create(*args, **kwargs)
        app.state.leak = 0
        app.add_route(TASKS, count_tasks)
        app.add_route(ALLOCATED, count_allocated)
        app.add_route(LEAK, plant_leak, methods=["POST"])
        app.add_middleware(Leaky)
        return app

    server.create_app = create_app


if __name__ == "__main__":
    observe()
    sys.exit(main())
