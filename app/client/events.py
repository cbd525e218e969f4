"""Server-sent events from the bytes of a response, as they come in."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

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
