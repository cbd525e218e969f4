"""Stop strings over token bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.decoding.constraints.stop_strings import StopStrings
from model_runtime.errors import InvalidQuery

SMALL_BYTES = st.binary(max_size=8).map(lambda data: bytes(97 + byte % 3 for byte in data))
STOPS = st.lists(SMALL_BYTES.filter(bool), min_size=1, max_size=4).map(tuple)
TEXT = st.lists(SMALL_BYTES, max_size=12)


def first_match(text: bytes, stops: tuple[bytes, ...], after: int = 0) -> tuple[int, int] | None:
    """The earliest end beyond ``after``, of equal ends the longest match, by plain search."""
    spans = [
        (begin, begin + len(stop))
        for stop in stops
        for begin in range(len(text))
        if text.startswith(stop, begin) and begin + len(stop) > after
    ]
    return min(spans, key=lambda span: (span[1], span[0]), default=None)


@given(tokens=TEXT, stops=STOPS)
def test_first_match_is_that_of_a_search_in_the_whole_text(
    tokens: list[bytes], stops: tuple[bytes, ...]
) -> None:
    """The first token to match, and its span, are what ``bytes.find`` on the text implies."""
    matcher = StopStrings(stops, tokens.__getitem__)
    for index in range(len(tokens)):
        assert not matcher.matched
        matcher = matcher.push(index)
        if matcher.matched:
            break
    text = b"".join(tokens)
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert matcher.span == first_match(text, stops)
    assert matcher.matched == bool(ends)
    if matcher.span is not None:
        assert matcher.span[1] == min(ends)


@given(tokens=TEXT, stops=STOPS)
def test_every_token_reports_its_own_match(tokens: list[bytes], stops: tuple[bytes, ...]) -> None:
    """After an ignored match the machine goes on, and a later stop may overlap the earlier."""
    matcher = StopStrings(stops, tokens.__getitem__)
    text = b""
    for index, token in enumerate(tokens):
        matcher = matcher.push(index)
        assert matcher.span == first_match(text + token, stops, after=len(text))
        text += token


@given(text=SMALL_BYTES, stops=STOPS, cuts=st.lists(st.integers(0, 8), max_size=4))
def test_match_does_not_depend_on_tokenization(
    text: bytes, stops: tuple[bytes, ...], cuts: list[int]
) -> None:
    """However the text is cut into tokens, the same span ends it."""
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    tokens = [text[begin:end] for begin, end in pairwise(edges)]
    matcher = StopStrings(stops, tokens.__getitem__)
    for index in range(len(tokens)):
        matcher = matcher.push(index)
        if matcher.matched:
            break
    assert matcher.span == first_match(text, stops)


def test_states_of_different_branches_do_not_disturb_each_other() -> None:
    """Pushing returns a new state and leaves the old one as it was."""
    root = StopStrings((b"ab",), lambda token_id: b"abc"[token_id : token_id + 1])
    node = root.push(0)
    left, right = node.push(1), node.push(2)
    assert (left.span, right.span, node.span, root.span) == ((0, 2), None, None, None)


def test_match_inside_one_token_and_across_several() -> None:
    """A stop may lie inside a token, or begin in one and end in another."""
    tokens = [b"one\n\ntwo", b"x\n", b"\ny"]
    matcher = StopStrings((b"\n\n",), tokens.__getitem__)
    assert matcher.push(0).span == (3, 5)
    assert matcher.push(1).push(2).span == (1, 3)


def test_a_character_split_over_tokens_is_matched_by_its_bytes() -> None:
    """Tokens that are halves of a UTF-8 character complete a stop together."""
    halves = ["é".encode()[:1], "é".encode()[1:]]
    matcher = StopStrings(("é".encode(),), halves.__getitem__)
    assert matcher.push(0).push(1).span == (0, 2)


def test_stop_complete_first_wins_over_one_that_began_earlier() -> None:
    """A stop inside a longer one is complete first, even if both arrive in one token."""
    assert StopStrings((b"abcd", b"bc"), lambda _: b"abcd").push(0).span == (1, 3)


def test_longest_of_stops_with_one_end_wins() -> None:
    """Of stops that end together the longest is cut off."""
    assert StopStrings((b"c", b"abc", b"bc"), lambda _: b"xabc").push(0).span == (1, 4)


def test_no_stops_never_match() -> None:
    """An empty list of stops is allowed and never ends anything."""
    assert not StopStrings((), lambda _: b"text").push(0).matched


def test_long_repetitive_stops_cost_the_text_once() -> None:
    """A stop that almost matches everywhere does not make matching quadratic."""
    stop = b"a" * 20_000 + b"b"
    matcher = StopStrings((stop,), lambda token_id: b"a" * 20_000 if token_id == 0 else b"b")
    for token_id in (0, 0, 0, 1):
        matcher = matcher.push(token_id)
    assert matcher.span == (40_000, 60_001)


def test_empty_stop_is_refused() -> None:
    """An empty stop would match before anything is generated."""
    with pytest.raises(InvalidQuery) as caught:
        StopStrings((b"x", b""), lambda _: b"")
    assert caught.value.param == "stop"


def test_leading_bytes_that_are_skipped_belong_to_no_stop() -> None:
    """Neither as a whole stop nor as the beginning of one, wherever tokens are cut."""
    pieces = [b" is", b" a", b" b"]
    state = StopStrings([b" ", b"sa"], lambda token_id: pieces[token_id], skip=3)
    first, second = state.push(0), state.push(0).push(1)
    assert not first.matched
    assert second.span == (3, 4)
    inside = StopStrings([b" "], lambda token_id: pieces[token_id], skip=1).push(1)
    assert not inside.matched
    assert inside.push(2).span == (2, 3)
