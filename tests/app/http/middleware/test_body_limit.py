"""What bodies may take together, how long they may take, and how many are parsed at once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.http import json_body as json_route
from app.http.json_body import LARGE_BODY, PARSING_THREADS
from app.http.middleware.body_limit import BodyBounds, BodyLimit
from app.http.strict_json import MAX_CONTAINERS
from app.settings import Settings, SettingsError
from tests.app.conftest import client_of, shell_app
from tests.app.http.middleware.test_middleware import LeavingClient, Message, call, post, until
from tests.app.stub_engine import StubEngine

pytestmark = pytest.mark.anyio

SIZE = LARGE_BODY + 1_000
JSON = {"Content-Type": "application/json"}
Receive = Callable[[], Awaitable[Message]]


def work(seconds: float, size: int = SIZE) -> bytes:
    """A body of so many bytes that keeps the engine busy for so long."""
    return json.dumps({"seconds": seconds}).encode().ljust(size)


def crowded_app(engine: StubEngine, **settings: Any) -> FastAPI:
    """An app with room for two large bodies, and not for three."""
    return shell_app(
        engine, **{"max_body_bytes": SIZE, "max_body_bytes_in_flight": 2 * SIZE, **settings}
    )


async def parts_of(body: bytes) -> AsyncIterator[bytes]:
    """A body whose length is not declared."""
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


def send(client: httpx.AsyncClient, content: Any) -> asyncio.Task[httpx.Response]:
    """Post a body meanwhile."""
    return asyncio.create_task(client.post("/work/x", content=content, headers=JSON))


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_bodies_beyond_the_room_for_all_get_429(engine: StubEngine, declared: bool) -> None:
    """Two wait for the engine; a third is refused, until one of them is answered."""
    async with client_of(crowded_app(engine)) as client:
        running = [send(client, work(60)), send(client, work(0.3))]
        await until(lambda: engine.working == 2)
        third = await send(client, work(0) if declared else parts_of(work(0)))
        assert third.status_code == 429
        assert third.json()["error"]["code"] == "too_many_body_bytes"
        assert third.headers["Retry-After"] == "1"
        assert (await running[1]).status_code == 200
        assert (await send(client, work(0) if declared else parts_of(work(0)))).status_code == 200
        running[0].cancel()


async def test_an_answer_that_nobody_reads_holds_no_room() -> None:
    """A body is forgotten when its answer begins, however long that takes to be sent."""
    begun = asyncio.Event()

    async def answer(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})

    async def never(_message: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    limit = BodyLimit(answer, BodyBounds(one=SIZE, together=SIZE, timeout_s=60))
    sent: list[Message] = []

    async def collect(message: Any) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": work(0)}

    deaf = asyncio.create_task(limit(post(work(0)), receive, never))
    await begun.wait()
    await limit(post(work(0)), receive, collect)
    assert [message["status"] for message in sent] == [200]
    deaf.cancel()


async def test_a_declared_length_without_room_is_refused_unread(engine: StubEngine) -> None:
    """What the others leave no room for is not waited for."""
    app = crowded_app(engine)

    async def unread() -> Message:
        raise AssertionError("the body was read")

    async with client_of(app) as client:
        running = [send(client, work(60)), send(client, work(60))]
        await until(lambda: engine.working == 2)
        sent: list[Message] = []

        async def keep(message: Any) -> None:
            sent.append(message)

        await app(post(b"", length=SIZE), unread, keep)
        assert sent[0]["status"] == 429
        for task in running:
            task.cancel()


async def test_small_bodies_are_read_beside_any_number_of_large_ones(engine: StubEngine) -> None:
    """Whoever fills the room for bodies does not keep small requests out."""
    async with client_of(crowded_app(engine)) as client:
        running = [send(client, work(60)), send(client, work(60))]
        await until(lambda: engine.working == 2)
        assert (await send(client, work(0, LARGE_BODY))).status_code == 200
        assert (await send(client, parts_of(work(0, LARGE_BODY)))).status_code == 200
        for task in running:
            task.cancel()


async def ends_well(app: FastAPI, engine: StubEngine) -> None:
    """An answer."""
    assert (await call_in(app, whole(work(0))))[0]["status"] == 200


async def ends_in_a_refusal(app: FastAPI, engine: StubEngine) -> None:
    """A body that is no JSON."""
    assert (await call_in(app, whole(b"{".ljust(SIZE))))[0]["status"] == 400


async def ends_in_a_failure(app: FastAPI, engine: StubEngine) -> None:
    """An exception that nobody expects."""
    engine.work = None  # type: ignore[method-assign, assignment]
    assert (await call_in(app, whole(work(0))))[0]["status"] == 500
    del engine.work


async def ends_with_silence(app: FastAPI, engine: StubEngine) -> None:
    """A body that does not come."""
    assert (await call_in(app, half_and_silence()))[0]["status"] == 408


async def ends_as_the_client_leaves(app: FastAPI, engine: StubEngine) -> None:
    """A client that waits no longer."""
    leaver = LeavingClient(work(60))
    request = asyncio.create_task(call_in(app, leaver.receive))
    await until(lambda: engine.working)
    leaver.left.set()
    assert await request == []


async def ends_by_cancellation(app: FastAPI, engine: StubEngine) -> None:
    """A server that cancels its tasks."""
    request = asyncio.create_task(call_in(app, LeavingClient(work(60)).receive))
    await until(lambda: engine.working)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


def whole(body: bytes) -> Receive:
    """A client that sends its body at once and stays."""
    client = LeavingClient(body)
    return client.receive


def half_and_silence() -> Receive:
    """A client that stops in the middle of its body."""
    client = LeavingClient(work(0))
    client._parts.pop()
    return client.receive


async def call_in(app: FastAPI, receive: Receive) -> list[Message]:
    """What a running app sends for one body of ``SIZE`` bytes."""
    sent: list[Message] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    await app(post(b"", length=SIZE), receive, keep)
    return sent


@pytest.mark.parametrize(
    "end",
    [
        ends_well,
        ends_in_a_refusal,
        ends_in_a_failure,
        ends_with_silence,
        ends_as_the_client_leaves,
        ends_by_cancellation,
    ],
)
async def test_the_room_is_free_however_a_request_ends(
    engine: StubEngine, end: Callable[[FastAPI, StubEngine], Awaitable[None]]
) -> None:
    """With room for one body, the next one is read after each way in which a request may end."""
    app = crowded_app(engine, max_body_bytes_in_flight=SIZE, body_timeout_s=0.2)
    async with app.router.lifespan_context(app):
        await end(app, engine)
        await ends_well(app, engine)


async def test_a_body_that_stops_coming_gets_408(engine: StubEngine) -> None:
    """The error has the one shape, and the connection ends: the rest could be taken for more."""
    sent = await call(shell_app(engine, body_timeout_s=0.05), post(b"", 9), half_and_silence())
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["code"] == "request_timeout"


async def test_a_byte_now_and_then_keeps_no_place(engine: StubEngine) -> None:
    """A body that never stops and never comes to an end is given up as well."""

    async def a_byte() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async with asyncio.timeout(10):
        sent = await call(shell_app(engine, body_timeout_s=0.1), post(b"", SIZE), a_byte)
    assert sent[0]["status"] == 408


async def test_a_steady_body_may_take_longer_than_the_timeout(engine: StubEngine) -> None:
    """The timeout is for a part, not for the whole."""
    pieces = [work(0, 40_000)[start : start + 4_000] for start in range(0, 40_000, 4_000)]

    async def a_piece() -> Message:
        await asyncio.sleep(0.1)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    left = asyncio.Event()

    async def receive() -> Message:
        if pieces:
            return await a_piece()
        await left.wait()
        return {"type": "http.disconnect"}

    sent = await call(shell_app(engine, body_timeout_s=0.9), post(b"", 40_000), receive)
    assert sent[0]["status"] == 200


async def test_a_complete_request_waits_for_the_model_as_long_as_it_takes(
    engine: StubEngine,
) -> None:
    """The timeout ends with the body."""
    async with client_of(shell_app(engine, body_timeout_s=0.05)) as client:
        assert (await send(client, work(0.3))).status_code == 200


class Readers:
    """Stands in for the work of the parsing threads: counts them, and holds them."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.go_on = threading.Event()
        self._lock = threading.Lock()

    def read(self, body: bytes, kind: Any) -> Any:
        """Hold a thread until told to go on."""
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go_on.wait(10)
        with self._lock:
            self.running -= 1
        return kind.validate_python({})


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Readers]:
    """Threads that parse nothing until they may."""
    readers = Readers()
    monkeypatch.setattr(json_route, "_read_large", readers.read)
    yield readers
    readers.go_on.set()


async def test_few_large_bodies_are_parsed_at_once(engine: StubEngine, readers: Readers) -> None:
    """The others wait for a thread, small bodies do not, and all are answered."""
    async with client_of(shell_app(engine)) as client:
        large = [send(client, work(0)) for _ in range(6)]
        await until(lambda: readers.running == PARSING_THREADS)
        assert (await send(client, b"{}")).status_code == 200
        readers.go_on.set()
        assert {answer.status_code for answer in await asyncio.gather(*large)} == {200}
    assert readers.most == PARSING_THREADS


async def test_clients_that_leave_start_no_further_threads(
    engine: StubEngine, readers: Readers
) -> None:
    """A thread that parses for nobody any more still counts until it ends."""
    async with client_of(shell_app(engine)) as client:
        leaving = [send(client, work(0)) for _ in range(PARSING_THREADS)]
        await until(lambda: readers.running == PARSING_THREADS)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        waiting = send(client, work(0))
        await asyncio.sleep(0.05)
        assert readers.running == readers.most == PARSING_THREADS
        readers.go_on.set()
        assert (await waiting).status_code == 200


async def test_a_body_of_too_many_lists_is_refused(client: httpx.AsyncClient) -> None:
    """Millions of lists would stop everybody for a second and take 35 times their size."""
    body = b'{"candidates": [' + b",".join([b"[]"] * (MAX_CONTAINERS + 1)) + b"]}"
    response = await client.post("/work/x", content=body, headers=JSON)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "ambiguous_json"
    assert "no request has that many" in response.json()["error"]["message"]


@pytest.mark.parametrize("text", ['"', "\\", "]", ""])
async def test_brackets_in_a_text_are_no_lists(client: httpx.AsyncClient, text: str) -> None:
    """A text may hold as many as it likes, behind quotes and escapes too."""
    text += "[{" * MAX_CONTAINERS
    response = await client.post("/work/x", json={"candidates": [text, "b"]})
    assert response.json()["candidates"] == [text, "b"]


def test_room_for_less_than_one_body_is_refused() -> None:
    """A body that the limit allows could never be read; by default there is room for eight."""
    assert Settings(max_body_bytes=100).body_bytes_in_flight() == 800
    with pytest.raises(SettingsError, match="CHAINRULE_MAX_BODY_BYTES_IN_FLIGHT"):
        Settings(max_body_bytes=100, max_body_bytes_in_flight=99).body_bytes_in_flight()
