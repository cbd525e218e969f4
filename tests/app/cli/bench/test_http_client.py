"""HTTP/1.1 as servers of all kinds speak it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.cli.bench.http_client import Answer, BadAnswer, Connections

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Gives each request the next of its answers, byte for byte.

    Attributes:
        answers: what is left; None closes the connection without a word.
        heads: of the requests.
        connections: opened so far.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.answers:
            try:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                break
            await reader.readexactly(2)
            answer = self.answers.pop(0)
            if answer is None:
                break
            writer.write(answer)
            await writer.drain()
            if b"Content-Length" not in answer and b"chunked" not in answer:
                break
        writer.close()


@asynccontextmanager
async def serving(*answers: bytes | None) -> AsyncIterator[tuple[Server, Connections]]:
    """A server of these answers, and connections to it."""
    server = Server(*answers)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    connections = Connections(f"http://127.0.0.1:{server.port}/a/b?c=d", [("X-Extra", "yes")])
    async with listening:
        yield server, connections
        connections.close()


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (OK, Answer(200, b"{}")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, Answer(200, b"{}")),
        (b"HTTP/1.0 500 No\r\n\r\nuntil the end", Answer(500, b"until the end")),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: z\r\n\r\n",
            Answer(200, b"abc0123456789"),
        ),
    ],
)
async def test_answers_of_every_kind(raw: bytes, answer: Answer) -> None:
    """With a length, in chunks, until the end, without a body, behind a continue."""
    async with serving(raw) as (_, connections):
        assert await connections.post(b"{}") == answer


async def test_what_is_sent() -> None:
    """Target, host and length, and every header."""
    async with serving(OK) as (server, connections):
        await connections.post(b"{}")
    assert server.heads[0].splitlines() == [
        b"POST /a/b?c=d HTTP/1.1",
        b"Host: 127.0.0.1:%d" % server.port,
        b"Content-Type: application/json",
        b"X-Extra: yes",
        b"Content-Length: 2",
        b"",
    ]


async def test_connections_are_kept() -> None:
    """One after the other takes one."""
    async with serving(OK, OK, OK) as (server, connections):
        for _ in range(3):
            await connections.post(b"{}")
    assert server.connections == 1


async def test_a_connection_that_is_to_close_is_not_used_again() -> None:
    """The server has said so."""
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with serving(closing, OK) as (server, connections):
        assert (await connections.post(b"{}")).status == 200
        assert (await connections.post(b"{}")).status == 200
    assert server.connections == 2


async def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    """That is no failure of the request."""
    async with serving(OK) as (server, connections):
        await connections.post(b"{}")
        while connections._idle[0].is_open:
            await asyncio.sleep(0)
        server.answers.append(OK)
        assert await connections.post(b"{}") == Answer(200, b"{}")
    assert server.connections == 2


async def test_a_kept_connection_that_is_closed_once_it_is_asked_is_a_failure() -> None:
    """It is told of, and not asked again on another one."""
    async with serving(OK, None, OK) as (server, connections):
        await connections.post(b"{}")
        with pytest.raises(ConnectionResetError):
            await connections.post(b"{}")
    assert server.connections == 1


async def test_a_new_connection_that_is_closed_is_a_failure() -> None:
    """Asking again and again would hide it."""
    async with serving(None) as (_, connections):
        with pytest.raises(ConnectionResetError):
            await connections.post(b"{}")


@pytest.mark.parametrize(
    "raw", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nCont"]
)
async def test_what_is_no_http_is_a_failure(raw: bytes) -> None:
    """It is told apart from a connection that was cut."""
    async with serving(raw) as (_, connections):
        with pytest.raises(BadAnswer):
            await connections.post(b"{}")


async def test_a_request_that_is_given_up_takes_its_connection_along() -> None:
    """Its answer must not be taken for the next one's."""
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", OK) as (
        server,
        connections,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connections.post(b"{}")
        assert await connections.post(b"{}") == Answer(200, b"{}")
    assert server.connections == 2
