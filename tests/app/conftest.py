"""The app in process, around a stub engine or any other."""

from __future__ import annotations

import linecache
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.app import stub_engine
from tests.app.loop_watch import blocking_calls
from tests.app.stub_engine import StubEngine, work_router

Open = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on the loop that the server runs on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting leaks in from outside."""
    for name in [name for name in os.environ if name.startswith("CHAINRULE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop() -> Iterator[None]:
    """Whatever a test asks of the app, nothing that waits is called on the event loop."""
    with blocking_calls() as found:
        yield
    assert found == []


@pytest.fixture
def engine() -> StubEngine:
    """An engine that only waits."""
    return StubEngine()


def shell_app(engine: Any = None, **settings: Any) -> FastAPI:
    """The app, with the stub engine's routes added."""
    load = settings.pop("load", None)
    app = create_app(Settings(**settings), engine, load=load)
    linecache.getlines(stub_engine.__file__)  # as the app does with its own routes
    app.include_router(work_router)
    return app


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running app; on the way out the app is shut down."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@pytest.fixture
async def client(engine: StubEngine, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a ready app with default settings."""
    async with client_of(shell_app(engine)) as client:
        yield client
