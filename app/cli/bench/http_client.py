"""HTTP/1.1 in as few steps as it takes, over connections that are kept.

What a client library does for each request takes longer than a small answer of a fast server, and
would be measured with it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

HEAD_BYTES: Final = 1 << 18
"""The longest head of an answer that is read."""


class BadAnswer(Exception):
    """What came back is no HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response.

    Attributes:
        status: as it came.
        content: the body.
        headers: by lower-case name; of several with one name the last.
    """

    status: int
    content: bytes
    headers: Mapping[bytes, bytes] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """One that is open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def is_open(self) -> bool:
        """Whether the other side, as far as is known here, still listens."""
        return not (self.reader.at_eof() or self.writer.is_closing())


class Connections:
    """Posts to one URL; opens a connection whenever none is idle.

    Args:
        url: of the route.
        headers: sent with every request, beside those that a body needs.
    """

    def __init__(self, url: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc.rpartition("@")[2]
        lines = [f"POST {target} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers]
        self._head = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        self._idle: list[Connection] = []

    async def post(self, body: bytes) -> Answer:
        """The answer to a body.

        Raises:
            OSError: there is no connection, or it was cut.
            BadAnswer: the answer cannot be read.
        """
        request = b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(body), body)
        while self._idle:
            kept = self._idle.pop()
            # Closed while it was idle is no failure; closed once it was asked is one.
            if kept.is_open:
                return await self._ask(kept, request)
            kept.writer.close()
        return await self._ask(await self._open(), request)

    def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            connection.writer.close()
        self._idle.clear()

    async def _open(self) -> Connection:
        return Connection(
            *await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=HEAD_BYTES)
        )

    async def _ask(self, connection: Connection, request: bytes) -> Answer:
        try:
            connection.writer.write(request)
            answer, stays = await _read(connection.reader)
        except BaseException:
            # Whatever is still to come on it would be taken for the answer to something else.
            connection.writer.close()
            raise
        if stays:
            self._idle.append(connection)
        else:
            connection.writer.close()
        return answer


async def _read(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    """The next answer, and whether the connection can be used again."""
    try:
        status, fields = _parsed(await reader.readuntil(b"\r\n\r\n"))
        while 100 <= status < 200:
            status, fields = _parsed(await reader.readuntil(b"\r\n\r\n"))
        stays = fields.get(b"connection", b"").lower() != b"close"
        if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            return Answer(status, await _chunks(reader), fields), stays
        if b"content-length" in fields:
            content = await reader.readexactly(int(fields[b"content-length"]))
            return Answer(status, content, fields), stays
        content = b"" if status == 204 else await reader.read()
        return Answer(status, content, fields), status == 204
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BadAnswer("the answer was cut short") from None
        raise ConnectionResetError("the server has closed the connection") from None
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise BadAnswer(f"the answer cannot be read: {error}") from None


def _parsed(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head[:-4].split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError(f"it begins with {first[:80]!r}")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    return int(rest[:3]), fields


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(parts)
