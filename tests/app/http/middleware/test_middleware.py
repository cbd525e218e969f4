"""Body limits, departing clients, draining: what surrounds every route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from app.http.active_requests import ActiveRequest, CancelReason
from tests.app.conftest import client_of, shell_app
from tests.app.stub_engine import StubEngine

pytestmark = pytest.mark.anyio


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """A body whose length is not declared."""
    for part in parts:
        yield part


def padded(length: int) -> bytes:
    """A valid body of exactly so many bytes."""
    return b"{}".ljust(length)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
@pytest.mark.parametrize(("length", "status"), [(100, 200), (101, 413)])
async def test_the_body_limit_is_exact(
    engine: StubEngine, length: int, status: int, declared: bool
) -> None:
    """At the limit 200, one byte more 413, with and without Content-Length."""
    body: Any = padded(length) if declared else chunks(padded(length)[:60], padded(length)[60:])
    async with client_of(shell_app(engine, max_body_bytes=100)) as client:
        response = await client.post(
            "/work/x", content=body, headers={"Content-Type": "application/json"}
        )
    assert response.status_code == status
    if status == 413:
        assert response.json()["error"]["code"] == "body_too_large"


async def test_a_declared_length_beyond_the_limit_is_refused_unread(engine: StubEngine) -> None:
    """Not one byte of a body that is too large is waited for."""

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    app = shell_app(engine, max_body_bytes=100)
    sent = await call(app, post(b"", length=101), receive=never().__anext__)
    assert sent[0]["status"] == 413


Message = dict[str, Any]


def post(body: bytes, length: int | None = None, path: str = "/work/x") -> Message:
    """The scope of a POST."""
    size = len(body) if length is None else length
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(size).encode()),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


async def call(app: FastAPI, scope: Message, receive: Callable[[], Any]) -> list[Message]:
    """What a running app sends for one request."""
    sent: list[Message] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    return sent


class LeavingClient:
    """Sends its body in two parts, and leaves when told to."""

    def __init__(self, body: bytes) -> None:
        half = len(body) // 2
        self._parts = [(body[:half], True), (body[half:], False)]
        self.left = asyncio.Event()
        self.reads = 0

    async def receive(self) -> Message:
        self.reads += 1
        if self._parts:
            part, more = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": more}
        await self.left.wait()
        return {"type": "http.disconnect"}


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_handler_ends_when_its_client_leaves(engine: StubEngine) -> None:
    """The engine sees the cancellation, the place is free, and no task is left behind."""
    app, leaver = shell_app(engine), LeavingClient(b'{"seconds": 60}')
    sent: list[Message] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        before = asyncio.all_tasks()
        request = asyncio.create_task(app(post(b'{"seconds": 60}'), leaver.receive, send))
        await until(lambda: engine.working)
        assert len(app.state.lifecycle.active_requests) == 1
        leaver.left.set()
        await request
        assert (engine.working, engine.finished) == (0, 0)
        assert len(app.state.lifecycle.active_requests) == 0
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
    assert sent == []


async def test_a_client_that_stays_gets_all_of_its_body_read(engine: StubEngine) -> None:
    """The watcher takes no part of the body, and is gone with the answer."""
    app, stayer = shell_app(engine), LeavingClient(b'{"candidates": ["a", "b"]}')
    before = asyncio.all_tasks()
    sent = await call(app, post(b'{"candidates": ["a", "b"]}'), stayer.receive)
    assert sent[0]["status"] == 200
    assert b'"candidates":["a","b"]' in sent[1]["body"]
    assert stayer.reads <= 3
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_client_that_leaves_in_its_body_is_no_failure(
    engine: StubEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a body and then nothing: no answer, no traceback."""
    app, leaver = shell_app(engine), LeavingClient(b"{}")
    leaver._parts.pop()
    leaver.left.set()
    assert await call(app, post(b"{}"), leaver.receive) == []
    assert not [record for record in caplog.records if record.exc_info]


async def test_cancellation_from_outside_is_passed_on(engine: StubEngine) -> None:
    """Only its own cancellation ends at the middleware; the server's goes through."""
    app, stayer = shell_app(engine), LeavingClient(b'{"seconds": 60}')

    async def send(message: Any) -> None:
        raise AssertionError(f"sent {message}")

    async with app.router.lifespan_context(app):
        request = asyncio.create_task(app(post(b'{"seconds": 60}'), stayer.receive, send))
        await until(lambda: engine.working)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert engine.working == 0
        assert len(app.state.lifecycle.active_requests) == 0


async def test_the_servers_cancellation_is_not_taken_for_the_clients() -> None:
    """When the client leaves and the server cancels as well, the server's wish is passed on."""
    passed_on: list[bool] = []
    handlers: list[ActiveRequest] = []

    async def handle() -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.append(ActiveRequest(task))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            passed_on.append(not handlers[-1].owns_cancellation())

    for also_cancelled in (False, True):
        task = asyncio.create_task(handle())
        await asyncio.sleep(0)
        handlers[-1].cancel(CancelReason.CLIENT_LEFT)
        if also_cancelled:
            task.cancel()
        await task
    assert passed_on == [False, True]


async def test_what_a_handler_does_after_its_answer_is_not_cut_off(engine: StubEngine) -> None:
    """The server reports a finished answer as a disconnect, and that ends nothing."""
    app, client = shell_app(engine), LeavingClient(b"{}")
    done: list[bool] = []

    async def clean_up() -> None:
        await asyncio.sleep(0.05)
        done.append(True)

    @app.post("/after")
    async def after(request: Request) -> Response:
        await request.body()
        return Response("ok", background=BackgroundTask(clean_up))

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            client.left.set()

    async with app.router.lifespan_context(app):
        await app(post(b"{}", path="/after"), client.receive, send)
    assert done == [True]


def streaming_app(engine: StubEngine, parts: int) -> FastAPI:
    """An app with a route that answers in parts."""
    app = shell_app(engine)

    @app.post("/stream")
    async def stream() -> StreamingResponse:
        async def numbers() -> AsyncIterator[str]:
            for number in range(parts):
                await engine.work(0.001)
                yield f"{number}\n"

        return StreamingResponse(numbers())

    return app


async def test_a_stream_is_sent_whole(engine: StubEngine) -> None:
    """Watching for the disconnect does not disturb a streamed answer."""
    async with client_of(streaming_app(engine, 5)) as client:
        assert (await client.post("/stream")).text == "0\n1\n2\n3\n4\n"


async def test_a_stream_stops_when_its_client_leaves(engine: StubEngine) -> None:
    """Whoever stops listening stops the work as well."""
    app, leaver = streaming_app(engine, 100_000), LeavingClient(b"{}")

    async def send(message: Any) -> None:
        if engine.finished == 3:
            leaver.left.set()

    async with app.router.lifespan_context(app):
        await app(post(b"{}", path="/stream"), leaver.receive, send)
        assert 3 <= engine.finished < 10
        assert len(app.state.lifecycle.active_requests) == 0


async def test_a_draining_server_refuses_new_work_and_finishes_the_old(engine: StubEngine) -> None:
    """Late requests get 503 and a closed connection, health answers, work in flight ends well."""
    app = shell_app(engine)
    async with client_of(app) as client:
        early = asyncio.create_task(client.post("/work/x", json={"seconds": 0.2}))
        await until(lambda: engine.working)
        app.state.lifecycle.request_stop(5.0)
        await asyncio.sleep(0)
        late = await client.post("/work/x", json={})
        assert (late.status_code, late.json()["error"]["code"]) == (503, "stopping")
        assert late.headers["Connection"] == "close"
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health")).json()["status"] == "draining"
        assert (await client.get("/metrics")).status_code == 200
        assert (await early).status_code == 200
        await until(lambda: app.state.lifecycle.is_terminal)
        assert app.state.lifecycle.exit_code == 0


async def test_at_the_drain_timeout_the_rest_gets_503(engine: StubEngine) -> None:
    """What the engine holds and what only reads its body are both answered, and in time."""
    app, slow = shell_app(engine), LeavingClient(b"{}")
    slow._parts.pop()
    sent: list[Message] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with client_of(app) as client:
        running = asyncio.create_task(client.post("/work/x", json={"seconds": 60}))
        reading = asyncio.create_task(app(post(b"{}"), slow.receive, send))
        await until(lambda: engine.working and slow.reads == 2)
        began = asyncio.get_running_loop().time()
        await app.state.lifecycle.stop(0.1)
        assert asyncio.get_running_loop().time() - began < 2
        answer = await running
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
        assert "/some/path" not in answer.text
        await reading
        assert sent[0]["status"] == 503
        assert (b"connection", b"close") in sent[0]["headers"]


class StuckEngine(StubEngine):
    """An engine whose forward never ends."""

    async def stop(self, drain_s: float) -> None:
        await asyncio.sleep(60)


async def test_an_engine_that_does_not_stop_is_left_behind() -> None:
    """A forward that hangs holds up neither the answers nor the exit."""
    engine = StuckEngine()
    app = shell_app(engine)
    async with client_of(app) as client:
        running = asyncio.create_task(client.post("/work/x", json={"seconds": 60}))
        await until(lambda: engine.working)
        async with asyncio.timeout(3):
            await app.state.lifecycle.stop(0.0)
        assert (await running).status_code == 503
    assert app.state.lifecycle.has_abandoned_threads
    assert app.state.lifecycle.exit_code == 0


async def test_an_engine_that_dies_while_draining_is_a_failure(engine: StubEngine) -> None:
    """Having been asked to stop does not hide that it broke."""
    app = shell_app(engine)
    async with client_of(app) as client:
        running = asyncio.create_task(client.post("/work/x", json={"seconds": 60}))
        await until(lambda: engine.working)
        app.state.lifecycle.request_stop(60.0)
        await asyncio.sleep(0)
        engine.die()
        await until(lambda: app.state.lifecycle.is_terminal)
        assert app.state.lifecycle.exit_code == 1
        running.cancel()
