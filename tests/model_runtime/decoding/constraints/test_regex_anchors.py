"""Anchors are taken away where they say nothing: Python's own expressions are the oracle."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.decoding.constraints.regex_anchors import without_anchors
from model_runtime.errors import InvalidQuery


@pytest.mark.parametrize(
    ("pattern", "bare"),
    [
        ("^abc$", "abc"),
        ("^abc", "abc"),
        ("abc$", "abc"),
        ("^(yes|no)$", "(yes|no)"),
        ("^yes$|^no$", "yes|no"),
        ("^a|b$", "a|b"),
        ("^^a$$", "a"),
        ("(?i)^abc$", "(?i)abc"),
        (r"^\$[0-9]+$", r"\$[0-9]+"),
        (r"\^a\$", r"\^a\$"),
        (r"a\\$", r"a\\"),
        (r"^[^a]$", "[^a]"),
        ("[$^]", "[$^]"),
        ("[]$]", "[]$]"),
        ("[^]$]$", "[^]$]"),
        (r"[\]$]+", r"[\]$]+"),
        ("[a[$]b]", "[a[$]b]"),
        ("[[:alpha:]$]", "[[:alpha:]$]"),
        (r"\p{Greek}$", r"\p{Greek}"),
        ("", ""),
        ("[$", "[$"),
        ("\\", "\\"),
    ],
)
def test_around_the_whole(pattern: str, bare: str) -> None:
    """Both ends of an expression or of an alternative; escaped and listed ones are characters."""
    assert without_anchors(pattern) == bare


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ("a^b", 2),
        ("a$b", 2),
        ("(^a)", 2),
        ("(a$)b", 3),
        ("(a$)", 3),
        ("a|(b|^c)", 6),
        ("^*a$+b", 4),
        (r"\\^", 3),
        ("a$*", 2),
        ("(?:^a$)", 4),
    ],
)
def test_anywhere_else_they_are_refused(pattern: str, place: int) -> None:
    """With the place, and how to write the character."""
    with pytest.raises(InvalidQuery, match=f"at character {place} stands inside") as caught:
        without_anchors(pattern)
    assert caught.value.param == "regex"
    assert f"\\{pattern[place - 1]} is the character" in str(caught.value)


PARTS = st.sampled_from(["a", "b", "^", "$", "|", "(", ")", "(?:", r"\^", r"\$", "[^a]", "[$]"])
TEXTS = ["".join(text) for length in range(4) for text in product("ab^$", repeat=length)]


@given(st.lists(PARTS, max_size=7))
def test_whole_texts_match_as_before(parts: list[str]) -> None:
    """Whatever is not refused matches the same whole texts with its anchors as without them."""
    pattern = "".join(parts)
    try:
        anchored = re.compile(pattern)
        bare = re.compile(without_anchors(pattern))
    except (re.error, InvalidQuery):
        return
    for text in TEXTS:
        assert bool(anchored.fullmatch(text)) == bool(bare.fullmatch(text))
