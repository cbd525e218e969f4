"""How few tokens a text may have, told by its length."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_runtime.tokenization.tokenizer import Tokenizer
from tests.model_runtime.tokenization.tokenizer_kinds import (
    BYTES,
    BYTES_ONLY,
    LLAMA3_PATTERN,
    NFC,
    PREPEND,
    REPLACE,
    Spec,
    added,
    byte_level,
    sentencepiece,
    spaces,
    split,
    steps,
    tokenizer,
    unigram,
)

BLANKS = added(" " * 9)
KNOWN: dict[str, Spec] = {
    "gpt2": byte_level(BYTES, BLANKS),
    "llama 3": byte_level(steps(split(LLAMA3_PATTERN), BYTES_ONLY), ignore_merges=True),
    "qwen": byte_level(BYTES, BLANKS) | {"normalizer": NFC},
    "llama 2": sentencepiece(None, steps(PREPEND, REPLACE, name="normalizers")),
    "gemma": sentencepiece(None, REPLACE, BLANKS),
    "words": sentencepiece(spaces("always"), None),
    "unigram": unigram(spaces("always")),
}
UNKNOWN: dict[str, Spec] = {
    "a normalizer that drops": byte_level(BYTES)
    | {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
    "a normalizer that replaces": byte_level(BYTES)
    | {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": ""}},
    "a split that drops": byte_level(steps(split(r"\s+", "Removed"), BYTES_ONLY)),
    "an added token that takes blanks": byte_level(BYTES, added("<x>", lstrip=True)),
    "unknown characters as one": sentencepiece(None, REPLACE, byte_fallback=False),
}
TOKENIZERS: dict[str, Tokenizer] = {}


def made(kind: str) -> Tokenizer:
    """The tokenizer of a kind, made once."""
    if kind not in TOKENIZERS:
        TOKENIZERS[kind] = tokenizer((KNOWN | UNKNOWN)[kind])
    return TOKENIZERS[kind]


@pytest.mark.parametrize("kind", [*KNOWN, *UNKNOWN])
@settings(deadline=None, max_examples=60)
@given(st.text(st.sampled_from(" aeit\n\u0301\u0323\u0345é東😀Ω<x>"), max_size=80))
@example(" " * 999)
@example("it is it is " * 99)
@example("\u03b1\u0313\u0300\u0345" * 99)
@example("☃" * 99)
@example("<x>" + " " * 99)
def test_no_text_has_fewer_tokens(kind: str, text: str) -> None:
    """Whatever the text is, and whatever the tokenizer makes of it."""
    found = made(kind)
    assert found.least_tokens(text) <= len(found.encode(text))


@pytest.mark.parametrize("kind", KNOWN)
def test_a_long_text_has_many(kind: str) -> None:
    """The bound grows with the text, for the kinds that published models have."""
    assert made(kind).least_tokens("it is so" * 1_000) >= 100


@pytest.mark.parametrize("kind", UNKNOWN)
def test_where_nothing_is_known_nothing_is_said(kind: str) -> None:
    """A text of any length may come to nothing there."""
    assert made(kind).least_tokens("it is so" * 1_000) == 0
