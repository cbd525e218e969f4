"""JSON has one value, or none."""

from __future__ import annotations

import json

import pytest

from app.http.strict_json import (
    MAX_CONTAINERS,
    MAX_KEYS,
    AmbiguousJson,
    JsonError,
    MalformedJson,
    parse_json,
)


@pytest.mark.parametrize(
    "text",
    [b'{"a": [1, -2.5e3, true, null, "\\ud83d\\ude00"]}', '"\N{SNOWMAN}"'.encode(), b" 0 "],
)
def test_what_one_reader_reads_all_do(text: bytes) -> None:
    """As Python's own reader has it."""
    assert parse_json(text) == json.loads(text)


def test_brackets_in_a_string_are_no_lists() -> None:
    """Only those that make one count."""
    text = "[" * (MAX_CONTAINERS + 1)
    assert parse_json(json.dumps(text).encode()) == text


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (b"", MalformedJson, "it is not JSON"),
        (b"{} {}", MalformedJson, "at line 1, column 4"),
        (b'"\xff"', MalformedJson, "it is not UTF-8"),
        (b"[" * 100_000, MalformedJson, "it is nested too deep"),
        (b"[NaN]", AmbiguousJson, "NaN"),
        (b"-Infinity", AmbiguousJson, "-Infinity"),
        (b"1e999", AmbiguousJson, "beyond the range"),
        (b"1" * 5_000, AmbiguousJson, "it holds a number with too many digits"),
        (b'"\\uD800"', AmbiguousJson, "surrogate"),
        (b"[" + b"[]," * MAX_CONTAINERS + b"[]]", AmbiguousJson, "it holds 262146 lists"),
        (json.dumps(dict.fromkeys(map(str, range(MAX_KEYS + 1)))).encode(), AmbiguousJson, "keys"),
    ],
)
def test_anything_else_is_refused(text: bytes, kind: type[JsonError], words: str) -> None:
    """In the words of whoever asks."""
    with pytest.raises(kind, match=words) as caught:
        parse_json(text, "it")
    assert caught.value.key is None


def test_a_key_that_stands_twice_is_named() -> None:
    """However deep it stands."""
    with pytest.raises(AmbiguousJson) as caught:
        parse_json(b'[{"a": {"b": 1, "b": 1}}]')
    assert caught.value.key == "b"
