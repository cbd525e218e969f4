"""A streamed answer, read from bytes as they come in."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import TypeAdapter

from app.client.errors import InvalidResponse, api_error
from app.client.retry import Call
from app.schemas.decode_response import DecodedToken, DecodeResponse

_TOKEN: TypeAdapter[DecodedToken] = TypeAdapter(DecodedToken)


class AnswerStream:
    """Takes the body of one stream, gives its tokens and in the end its whole answer."""

    def __init__(self, call: Call[DecodeResponse]) -> None:
        self._call = call
        self._reader = EventReader()
        self._is_whole = False

    def feed(self, piece: bytes) -> Iterator[DecodedToken | DecodeResponse]:
        """What is complete with these bytes. Events of other kinds are left out.

        Raises:
            ApiError: the server failed, and says so in its stream.
            UnreadableAnswer: an event is none of this server.
        """
        for event in self._reader.feed(piece):
            if event.name == "error":
                raise api_error(None, event.data.encode(), self._call.request_id)
            if event.name in ("token", "result"):
                yield self._read(event)

    def end(self) -> None:
        """There are no more bytes. Raises ``InvalidResponse`` where the answer has not come."""
        if not self._is_whole:
            raise InvalidResponse(
                f"{self._call.path} ended its stream before the result",
                request_id=self._call.request_id,
            )

    def _read(self, event: Event) -> DecodedToken | DecodeResponse:
        data = event.data.encode()
        try:
            if event.name == "token":
                return _TOKEN.validate_json(data, extra="ignore")
            answer = self._call.read(data)
        except ValueError as error:
            raise InvalidResponse(
                f"{self._call.path} sent an event that cannot be read: {error}",
                request_id=self._call.request_id,
            ) from error
        self._is_whole = True
        return answer


_BREAK = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, ``message`` where it has none, and its data."""

    name: str
    data: str


class EventReader:
    """Takes bytes cut anywhere, gives whole events."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that end with these bytes."""
        self._rest += self._decoder.decode(piece)
        *lines, self._rest = self._lines()
        for line in lines:
            event = self._take(line)
            if event is not None:
                yield event

    def _lines(self) -> list[str]:
        # A carriage return at the end may be half of a line's end.
        if self._rest.endswith("\r"):
            *lines, rest = _BREAK.split(self._rest[:-1])
            return [*lines, rest + "\r"]
        return _BREAK.split(self._rest)

    def _take(self, line: str) -> Event | None:
        if not line:
            return self._end()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        return None

    def _end(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return Event(name, "\n".join(data)) if data else None
