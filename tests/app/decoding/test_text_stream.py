"""Bytes to text piece by piece: whatever the cuts, the pieces are the whole."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.decoding.stream import TextStream

CHUNKS = st.lists(st.binary(max_size=4), max_size=12)
SMALL = st.lists(st.text("ab", max_size=3).map(str.encode), max_size=10)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4).map(str.encode), max_size=3)


@settings(deadline=None)
@given(CHUNKS, st.integers(0, 5))
def test_pieces_are_the_text_decoded_at_once(chunks: list[bytes], skip: int) -> None:
    """Any bytes in any pieces, valid or not: the same text, U+FFFD for U+FFFD."""
    stream = TextStream((), skip)
    content = b"".join(chunks)[skip:]
    pieces = [stream.push(chunk) for chunk in chunks] + [stream.finish(content)]
    assert "".join(pieces) == content.decode("utf-8", "replace")


@settings(deadline=None)
@given(SMALL, STOPS, st.integers(0, 3))
def test_a_stop_never_shows_in_part(chunks: list[bytes], stops: list[bytes], skip: int) -> None:
    """Up to where the first stop begins every piece holds, and nothing is held for longer."""
    stream, seen, shown = TextStream(stops, skip), b"", ""
    for chunk in chunks:
        seen += chunk
        begins = [place for stop in stops if (place := seen.find(stop)) >= 0]
        if begins:
            content = seen[skip : max(skip, min(begins))]
            assert (shown + stream.finish(content)).encode() == content
            return
        shown += stream.push(chunk)
        held = len(seen[skip:]) - len(shown)
        tails = [seen[place:] for place in range(len(seen))]
        waiting = [len(tail) for tail in tails if any(stop.startswith(tail) for stop in stops)]
        assert held == min(max(waiting, default=0), len(seen[skip:]))
    assert shown + stream.finish(seen[skip:]) == seen[skip:].decode()
