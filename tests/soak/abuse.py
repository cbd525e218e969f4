"""What clients do that mean no good, or have gone wrong: each over a connection of its own."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

CLOSED = "closed"
"""The server has ended the connection without an answer."""

LEFT = "left"
"""The client has gone before there was an answer."""

WAIT_S = 30.0
"""For an answer, or the end of the connection."""

MAX_BODY_BYTES = 100_000
DAWDLE_S = 2.0
"""Seconds that the server gives headers, and the next part of a body or of an answer."""

_HEAD = "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
_JSON = "Content-Type: application/json\r\n"
_LONG = {"context": [5], "max_tokens": 200, "ignore_eos": True}


@dataclass(frozen=True, slots=True)
class Target:
    """The server, and a key that it takes."""

    host: str
    port: int
    key: str


Abuse = Callable[["Abuser"], Awaitable[str]]


class Abuser:
    """A connection and what is done with it."""

    def __init__(self, target: Target, seed: str) -> None:
        self.target = target
        self.random = random.Random(seed)
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, receive_buffer: int = 0) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, (self.target.host, self.target.port))
        self._reader, self._writer = await asyncio.open_connection(sock=connection)

    async def send(self, data: bytes) -> None:
        """On a new connection, if there is none yet."""
        if self._writer is None:
            await self.connect()
        assert self._writer is not None
        self._writer.write(data)
        await self._writer.drain()

    async def status(self) -> str:
        """Of the next answer."""
        async with asyncio.timeout(WAIT_S):
            line = await self._reader.readline()
        return line.split()[1].decode() if line.startswith(b"HTTP/1.1 ") else CLOSED

    async def some(self) -> None:
        """Wait for some of the answer."""
        async with asyncio.timeout(WAIT_S):
            await self._reader.read(64)

    async def leave(self) -> str:
        """Go, with a FIN or with a reset."""
        assert self._writer is not None
        if self.random.random() < 0.5:
            self._writer.transport.abort()
        self._writer.close()
        return LEFT

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()

    def request(self, path: str, body: bytes, more: str = _JSON, key: str | None = None) -> bytes:
        """All of a request."""
        head = _HEAD.format(path=path, key=self.target.key if key is None else key)
        return f"{head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def long(self, **more: object) -> bytes:
        """A request that keeps the server busy, on a path that few others share."""
        context = [self.random.randint(5, 250) for _ in range(3)]
        body = {**_LONG, "context": context, **more}
        return self.request("/v1/decode", json.dumps(body).encode())


async def abuse(kind: str, target: Target, seed: str) -> str:
    """Do it; the status of the answer, ``CLOSED`` or ``LEFT``."""
    abuser = Abuser(target, seed)
    try:
        return await _ABUSES[kind](abuser)
    except (ConnectionError, asyncio.IncompleteReadError):
        return CLOSED
    finally:
        abuser.close()


async def _leave_queued(it: Abuser) -> str:
    await it.send(it.long())
    await asyncio.sleep(0.05 * it.random.random())
    return await it.leave()


async def _flood(it: Abuser) -> str:
    """More than the queue holds, and gone again."""
    crowd = [Abuser(it.target, str(it.random.random())) for _ in range(24)]
    try:
        for one in crowd:
            await one.send(one.long())
        await asyncio.sleep(0.2 * it.random.random())
        return LEFT
    finally:
        for one in crowd:
            one.close()


async def _leave_stream(it: Abuser) -> str:
    await it.send(it.long(stream=True))
    await it.some()
    return await it.leave()


async def _never_read(it: Abuser) -> str:
    await it.connect(receive_buffer=4096)
    await it.send(it.long(stream=True, top_logprobs=20))
    await asyncio.sleep(1.5 * DAWDLE_S)
    return LEFT


async def _slow_head(it: Abuser) -> str:
    await it.send(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    return await it.status()


async def _leave_head(it: Abuser) -> str:
    await it.send(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    return await it.leave()


def _half(it: Abuser) -> bytes:
    return it.request("/v1/score", b" " * 1000)[:-990]


async def _half_body(it: Abuser) -> str:
    await it.send(_half(it))
    return await it.status()


async def _leave_body(it: Abuser) -> str:
    await it.send(_half(it))
    return await it.leave()


async def _leave_pipelined(it: Abuser) -> str:
    await it.send(it.long(max_tokens=2) + it.long() + it.long())
    await it.some()
    return await it.leave()


async def _chunks_without_end(it: Abuser) -> str:
    head = _HEAD.format(path="/v1/score", key=it.target.key)
    await it.send(f"{head}{_JSON}Transfer-Encoding: chunked\r\n\r\n".encode())
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    for _ in range(2 * MAX_BODY_BYTES // 4096):
        await it.send(chunk)
    return await it.status()


def _bytes(made: Callable[[Abuser], bytes]) -> Abuse:
    async def act(it: Abuser) -> str:
        await it.send(made(it))
        return await it.status()

    return act


def _body(path: str, body: object, more: str = _JSON, key: str | None = None) -> Abuse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return _bytes(lambda it: it.request(path, data, more, key))


_ONE = {"context": [5], "candidates": [[6]]}
_BOMB = gzip.compress(bytes(20 * MAX_BODY_BYTES))
_ABUSES: dict[str, Abuse] = {
    "leave the queue": _leave_queued,
    "flood": _flood,
    "leave a stream": _leave_stream,
    "never read": _never_read,
    "slow headers": _slow_head,
    "leave in the headers": _leave_head,
    "half a body": _half_body,
    "leave in the body": _leave_body,
    "leave behind others": _leave_pipelined,
    "endless chunks": _chunks_without_end,
    "too large": _body("/v1/score", b" " * (MAX_BODY_BYTES + 1)),
    "huge headers": _bytes(lambda _: b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 500_000),
    "garbage": _bytes(lambda it: it.random.randbytes(300) + b"\r\n\r\n"),
    "two lengths": _body("/v1/score", _ONE, f"{_JSON}Content-Length: 3\r\n"),
    "two framings": _body("/v1/score", b"0\r\n\r\n", f"{_JSON}Transfer-Encoding: chunked\r\n"),
    "deep JSON": _body("/v1/score", b"[" * 90_000),
    "no JSON": _body("/v1/decode", b'{"context": '),
    "equal keys": _body("/v1/score", b'{"context": "a", "context": "b", "candidates": ["c"]}'),
    "no number": _body("/v1/score", b'{"context": "a", "candidates": ["c"], "temperature": NaN}'),
    "unknown keys": _body("/v1/score", _ONE | {"contxt": 5}),
    "bad ids": _body("/v1/decode", {"context": [5, 2**40]}),
    "too long": _body("/v1/next_token", {"context": [5] * 600}),
    "no time": _body("/v1/decode", _LONG | {"timeout_ms": 1}),
    "wrong key": _body("/v1/score", _ONE, key="wrong"),
    "no key": _body("/v1/score", _ONE, key=""),
    "wrong type": _body("/v1/score", _ONE, "Content-Type: text/plain\r\n"),
    "compressed unheard of": _body("/v1/score", _ONE, f"{_JSON}Content-Encoding: br\r\n"),
    "not compressed": _body("/v1/score", _ONE, f"{_JSON}Content-Encoding: gzip\r\n"),
    "bomb": _body("/v1/score", _BOMB, f"{_JSON}Content-Encoding: gzip\r\n"),
    "no path": _body("/v1/nothing", _ONE),
    "wrong method": _body("/health/live", _ONE),
    "wrong host": _bytes(lambda _: b"GET /health HTTP/1.1\r\nHost: x/docs?\r\n\r\n"),
}

EXPECTED: dict[str, frozenset[str]] = {
    **dict.fromkeys(_ABUSES, frozenset({"400", CLOSED})),
    **dict.fromkeys(
        (
            *("leave the queue", "leave a stream", "never read", "leave in the headers"),
            *("leave in the body", "leave behind others", "flood"),
        ),
        frozenset({LEFT}),
    ),
    **dict.fromkeys(("slow headers", "half a body"), frozenset({"408"})),
    "endless chunks": frozenset({"413", CLOSED}),
    **dict.fromkeys(("too large", "bomb"), frozenset({"413"})),
    **dict.fromkeys(("deep JSON", "no JSON", "not compressed"), frozenset({"400"})),
    **dict.fromkeys(
        ("equal keys", "no number", "unknown keys", "bad ids", "too long"), frozenset({"422"})
    ),
    "no time": frozenset({"504"}),
    **dict.fromkeys(("wrong key", "no key"), frozenset({"401"})),
    **dict.fromkeys(("wrong type", "compressed unheard of"), frozenset({"415"})),
    "no path": frozenset({"404"}),
    "wrong method": frozenset({"405"}),
}
"""Abuse -> how it may end. Whatever needs a place in the queue may end with 429 as well."""
