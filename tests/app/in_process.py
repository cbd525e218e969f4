"""The app in process as transports of httpx, for both clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from app.client import AsyncClient, Client, Retries
from tests.app.conftest import shell_app
from tests.app.fake_engine import FakeEngine

URL = "http://test"
ONCE = Retries(attempts=1)


class BlockingTransport(httpx.BaseTransport):
    """An asynchronous transport for callers that wait."""

    def __init__(self, portal: BlockingPortal, transport: httpx.AsyncBaseTransport) -> None:
        self._portal = portal
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer on the portal's loop."""
        return self._portal.call(self._answer, request)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(
            httpx.Request(
                request.method, request.url, headers=request.headers, content=request.read()
            )
        )
        return httpx.Response(
            response.status_code, headers=response.headers, content=await response.aread()
        )


@contextmanager
def client_over(engine: Any = None, retries: Retries = ONCE, **settings: Any) -> Iterator[Client]:
    """A client of the app around an engine."""
    app = shell_app(engine or FakeEngine(), **settings)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
    ):
        transport = BlockingTransport(portal, httpx.ASGITransport(app))
        with Client(URL, retries=retries, transport=transport) as client:
            yield client


@asynccontextmanager
async def async_client_over(
    engine: Any = None, retries: Retries = ONCE, **settings: Any
) -> AsyncIterator[AsyncClient]:
    """The same on this loop."""
    app = shell_app(engine or FakeEngine(), **settings)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(URL, retries=retries, transport=httpx.ASGITransport(app)) as client,
    ):
        yield client
