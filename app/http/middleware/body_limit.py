"""What request bodies may take: memory, one by one and all together, and time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors.table import BodyTooLarge, RequestTimeout, TooManyBodyBytes, error_response
from app.http.content_coding import Decode, Decompressor, take_coding
from app.http.json_body import LARGE_BODY

MIN_BYTES_PER_S: Final = 1_024
"""A body that comes more slowly than this, measured from its beginning, is given up: a byte now and
then would keep its place for ever."""


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """The operator's settings.

    Attributes:
        one: bytes of one body, as it comes and decompressed.
        together: bytes of all bodies whose answers have not begun yet. A body of up to
            ``LARGE_BODY`` counts, and is read in any case: large ones that come slowly leave
            room for small requests, whose number the number of connections bounds.
        timeout_s: seconds between two parts of a body.
    """

    one: int
    together: int
    timeout_s: float


class BodyLimit:
    """Holds no more of bodies than ``bounds`` allow, whether their length was declared or not.

    What is declared is refused unread: 413 where it is too large by itself, 429 beside the others.
    An undeclared (chunked) length is counted while it arrives, and the byte too many raises the
    same out of ``receive``, where the handler reads; so does a body that does not come: 408.

    A compressed body is handed on decompressed, in one part, and counts as what it has become.
    One that is not what it says raises ``MalformedEncoding`` there: 400.
    """

    def __init__(self, app: ASGIApp, bounds: BodyBounds) -> None:
        self._app = app
        self._bounds = bounds
        self._in_flight = 0
        self._decompressor = Decompressor(bounds.one)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive)
        try:
            self._count(body, _declared(scope))
        except (BodyTooLarge, TooManyBodyBytes) as refusal:
            await error_response(refusal, scope["path"])(scope, receive, send)
            return
        decode = take_coding(scope)

        async def receive_next() -> Message:
            if decode is None or body.complete:
                return await self._receive(body)
            return await self._receive_whole(body, decode)

        async def answer(message: Message) -> None:
            # A client that does not read its answer must not keep others' bodies out.
            self._release(body)
            await send(message)

        try:
            await self._app(scope, receive_next, answer)
        finally:
            self._release(body)

    def _release(self, body: _Body) -> None:
        self._in_flight -= body.counted
        body.counted, body.answered = 0, True

    async def _receive(self, body: _Body) -> Message:
        message = await body.receive(self._bounds.timeout_s)
        if not body.answered:
            self._count(body, body.seen)
        return message

    async def _receive_whole(self, body: _Body, decode: Decode) -> Message:
        """All of a compressed body, as it was before."""
        parts: list[bytes] = []
        while not body.complete:
            message = await self._receive(body)
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
        plain = await self._decompressor.run(decode, b"".join(parts))
        if not body.answered:
            self._count(body, len(plain))
        return {"type": "http.request", "body": plain, "more_body": False}

    def _count(self, body: _Body, size: int) -> None:
        more = max(0, size - body.counted)
        if size > self._bounds.one:
            raise BodyTooLarge(f"The request body is larger than {self._bounds.one} bytes.")
        if more and size > LARGE_BODY and self._in_flight + more > self._bounds.together:
            raise TooManyBodyBytes(
                f"This body and those in flight exceed {self._bounds.together} bytes; try again."
            )
        body.counted += more
        self._in_flight += more


class _Body:
    """One body on its way.

    Attributes:
        seen: bytes that have arrived.
        complete: nothing more of it will.
        counted: bytes that are counted as in flight: what was declared, or else what was seen;
            none once it is answered.
        answered: its answer has begun, or there will be none.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._began: float | None = None
        self.complete = False
        self.seen = 0
        self.counted = 0
        self.answered = False

    async def receive(self, timeout_s: float) -> Message:
        """The next part, or what comes behind the last one, which may take as long as it likes."""
        if self.complete:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now
        at_this_rate = self._began + timeout_s + self.seen / MIN_BYTES_PER_S
        try:
            async with asyncio.timeout_at(min(now + timeout_s, at_this_rate)):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout("The request body did not come in time.") from None
        self.seen += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        return message


def _declared(scope: Scope) -> int:
    # The HTTP parser has refused anything but one plain decimal number.
    lengths = [int(value) for name, value in scope["headers"] if name == b"content-length"]
    return max(lengths, default=0)
