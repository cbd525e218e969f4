"""Server-sent events, cut anywhere."""

from __future__ import annotations

import pytest

from app.client.sse import Event, EventReader

STREAM = (
    ": a comment\n"
    'event: token\r\ndata: {"a":\r\ndata:  1}\r\n\r\n'
    "data: caf\N{LATIN SMALL LETTER E WITH ACUTE}\r\rid: 7\n\n"
    "event: result\ndata\n\n"
    "event: lost\ndata: x\n"
).encode()
EVENTS = [
    Event("token", '{"a":\n 1}'),
    Event("message", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
    Event("result", ""),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_do_not_depend_on_the_cuts(size: int) -> None:
    """Line ends of all kinds, comments, several data lines; what has no end is no event."""
    reader = EventReader()
    found = [
        event
        for begin in range(0, len(STREAM), size)
        for event in reader.feed(STREAM[begin : begin + size])
    ]
    assert found == EVENTS
