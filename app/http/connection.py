"""One connection: how long its client may take, how many there may be, and what is no HTTP.

uvicorn bounds how long a connection is idle between two requests, and nothing else. Here a client
owes something at almost every moment:

    accepted ──> first byte ──> headers complete ──> body complete ──> answer out ──┐
       header_timeout  header_timeout       BodyLimit          nothing         KEEP_ALIVE_S
            ^                                                                       │
            └───────────────────────────── first byte <─────────────────────────────┘

A request that is complete waits for the model, and for that nothing here ends it. An answer that
is out waits for its reader, as long as it reads on. Where there are as many connections as there
may be, a new one takes the place of that which has been idle longest.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.errors.table import MalformedHttp, RequestTimeout, TooManyConnections, error_response

KEEP_ALIVE_S: Final = 75
"""Longer than the idle time of usual load balancers, so that they close first."""
LINGER_S: Final = 1
"""Seconds in which a client that was refused may read why. A socket that is closed while the client
still sends is reset, and the answer with it."""


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """The operator's settings.

    Attributes:
        header_timeout_s: seconds from a request's first byte to the end of its headers.
        discard_s: seconds in which the rest of a body is discarded that was answered early, and
            in which a client reads some of an answer.
        connections: open at once.
    """

    header_timeout_s: float
    discard_s: float
    connections: int


class Owed(Enum):
    """What a client is waited for. None of these is put off by a byte of it."""

    FIRST_BYTE = "the first byte of a new connection"
    NEXT_REQUEST = "the first byte of another request"
    HEADERS = "the rest of the headers"
    UNREAD_BODY = "the rest of a body whose request is answered"


_IDLE: Final = (Owed.FIRST_BYTE, Owed.NEXT_REQUEST)


class HttpProtocol(H11Protocol):
    """uvicorn's protocol, with bounds."""

    def __init__(self, *args: Any, bounds: ConnectionBounds, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds
        self._owed: Owed | None = None
        self._owed_since = 0.0
        self._unread = 0
        self._reader_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the loop for each connection that it accepts."""
        super().connection_made(transport)
        if len(self.connections) > self._bounds.connections and not self._take_place():
            self.connections.discard(self)
            self._refuse(TooManyConnections("too many connections"))
        else:
            self._watch()

    def pause_writing(self) -> None:
        """Called by the loop when the client reads more slowly than it is sent to."""
        super().pause_writing()
        if self._reader_timer is None:
            self._unread = 0
            self._look_at_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop at the end."""
        self._wait_for(None)
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the loop for what arrives."""
        if not self._refused:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Called when the last byte of an answer has been handed to the transport."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is no HTTP."""
        self._refuse(MalformedHttp(msg))

    def _watch(self) -> None:
        owed = None if self._refused or self.transport.is_closing() else self._what_is_owed()
        if owed is not self._owed:
            self._wait_for(owed)

    def _what_is_owed(self) -> Owed | None:
        if self.conn.their_state is h11.IDLE:
            if self.conn.trailing_data[0]:
                return Owed.HEADERS
            return Owed.FIRST_BYTE if self.cycle is None else Owed.NEXT_REQUEST
        if self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            return Owed.UNREAD_BODY
        return None

    def _wait_for(self, owed: Owed | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._owed, self._timer = owed, None
        self._owed_since = self.loop.time()
        if owed is not None:
            self._timer = self.loop.call_later(self._seconds(owed), self._give_up)

    def _seconds(self, owed: Owed) -> float:
        if owed is Owed.NEXT_REQUEST:
            return KEEP_ALIVE_S
        if owed is Owed.UNREAD_BODY:
            return self._bounds.discard_s
        return self._bounds.header_timeout_s

    def _give_up(self) -> None:
        if self._owed is Owed.HEADERS:
            self._refuse(RequestTimeout("The request's headers did not come in time."))
        else:
            # Who has sent nothing has asked nothing, and an answer could be taken for the next one.
            self._hang_up()

    def _hang_up(self) -> None:
        """Close; what the client has not read by now, it does not want."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _take_place(self) -> bool:
        """Of the connection that has been idle longest; False where none is."""
        idle = [one for one in self.connections if isinstance(one, HttpProtocol) and one.is_idle]
        if not idle:
            return False
        oldest = min(idle, key=lambda one: one._owed_since)
        self.connections.discard(oldest)
        oldest._hang_up()
        return True

    @property
    def is_idle(self) -> bool:
        """Nothing is asked or answered on it."""
        return self._owed in _IDLE

    def _look_at_reader(self) -> None:
        """Hang up on a client that has read nothing since the last look."""
        self._reader_timer = None
        unread = self.transport.get_write_buffer_size()
        if unread and unread == self._unread:
            self.transport.abort()
        elif unread:
            self._unread = unread
            look = self._look_at_reader
            self._reader_timer = self.loop.call_later(self._bounds.discard_s, look)

    def _refuse(self, refusal: Exception) -> None:
        """Answer what no handler hears of, if an answer can still be told apart, and hang up."""
        self._refused = True
        self._wait_for(None)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        self.transport.write(self._answer(refusal))
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _answer(self, refusal: Exception) -> bytes:
        response = error_response(refusal, "")
        status = HTTPStatus(response.status_code)
        head = h11.Response(
            status_code=status.value,
            headers=[*self.server_state.default_headers, *response.raw_headers],
            reason=status.phrase.encode(),
        )
        events = (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage())
        return b"".join(self.conn.send(event) or b"" for event in events)
