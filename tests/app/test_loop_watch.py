"""Controls: what waits on the event loop, or computes there for long, is noticed by the watch."""

from __future__ import annotations

import asyncio
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter

from tests.app import loop_watch
from tests.app.conftest import client_of, shell_app
from tests.app.loop_watch import blocking_calls, callback_seconds
from tests.app.stub_engine import StubEngine

pytestmark = pytest.mark.anyio

BLOCKING: dict[str, Callable[[], object]] = {
    "time.sleep": lambda: time.sleep(0.001),
    "open": lambda: Path(__file__).read_bytes(),
    "os.listdir": lambda: list(Path(__file__).parent.iterdir()),
    "subprocess.Popen": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "socket.getaddrinfo": lambda: socket.getaddrinfo("localhost", 80),
    "socket.connect": lambda: _connected(("127.0.0.1", 9)),
    "Condition.wait": lambda: threading.Event().wait(0.001),
    "Condition.wait of a queue": lambda: _empty(queue.Queue()),
    "Future.result": lambda: _on_thread(time.sleep, 0.05),
    "Thread.join": lambda: _joined(threading.Thread(target=time.sleep, args=(0.05,))),
}


def _empty(waited_for: queue.Queue[int]) -> None:
    with pytest.raises(queue.Empty):
        waited_for.get(timeout=0.001)


def _connected(address: tuple[str, int]) -> None:
    with socket.socket() as connection, suppress(OSError):
        connection.connect(address)


def _on_thread(work: Callable[[float], None], seconds: float) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work, seconds).result()


def _joined(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


@pytest.fixture
async def client(
    engine: StubEngine, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app with a route that does on the event loop what no route may do."""
    routes = APIRouter()

    @routes.get("/block")
    async def block(what: str, thread: bool = False) -> None:
        if thread:
            await asyncio.to_thread(BLOCKING[what])
        else:
            BLOCKING[what]()

    @routes.get("/compute")
    async def compute() -> int:
        ends, count = time.thread_time() + 0.3, 0
        while time.thread_time() < ends:
            count += 1
        return count

    app = shell_app(engine)
    app.include_router(routes)
    monkeypatch.setattr(loop_watch, "OURS", (*loop_watch.OURS, __file__))
    monkeypatch.setattr(loop_watch, "TESTS", "nothing")
    async with client_of(app) as client:
        yield client


@pytest.mark.parametrize("what", BLOCKING)
async def test_a_route_that_waits_is_noticed(client: httpx.AsyncClient, what: str) -> None:
    """Files, processes, names, connections, sleep, and waiting for other threads."""
    with blocking_calls() as found:
        assert (await client.get("/block", params={"what": what})).status_code == 200
    kind, here = what.split(" ")[0], Path(__file__).name
    assert any(one.startswith(kind) and here in one for one in found), found


@pytest.mark.parametrize("what", BLOCKING)
async def test_waiting_on_a_thread_is_nobodys_business(
    client: httpx.AsyncClient, what: str
) -> None:
    """The same beside the event loop."""
    with blocking_calls() as found:
        params = {"what": what, "thread": "true"}
        assert (await client.get("/block", params=params)).status_code == 200
    assert found == []


async def test_a_route_that_computes_is_noticed(client: httpx.AsyncClient) -> None:
    """A callback is timed by what its own thread computes."""
    with callback_seconds() as seconds:
        # In a task of its own: the callback that begins the timing is not timed.
        assert (await asyncio.create_task(client.get("/compute"))).status_code == 200
    assert max(seconds) > 0.25
