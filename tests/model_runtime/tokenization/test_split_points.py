"""Texts cut in parts have the tokens of the whole, for every kind of tokenizer that is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Rust

from model_runtime.tokenization.split_points import split_pattern
from model_runtime.tokenization.tokenizer import Tokenizer
from tests.model_runtime.tokenization.tokenizer_kinds import (
    BYTES,
    BYTES_ONLY,
    DEEPSEEK_PATTERNS,
    DIGITS,
    GPT2_PATTERN,
    LLAMA3_PATTERN,
    NFC,
    O200K_PATTERN,
    PREPEND,
    QWEN_PATTERN,
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

THINK, RUN = added("<think>", normalized=True), added("   ")
MASK = added("<mask>", special=True, lstrip=True, rstrip=True)

CUT: dict[str, Spec] = {
    "gpt2": byte_level(BYTES),
    "gpt2 behind a space": byte_level(BYTES | {"add_prefix_space": True}, THINK, RUN),
    "smollm": byte_level(steps(DIGITS, BYTES), MASK),
    "llama 3": byte_level(steps(split(LLAMA3_PATTERN), BYTES_ONLY), ignore_merges=True),
    "qwen": byte_level(steps(split(QWEN_PATTERN), BYTES_ONLY), THINK, RUN) | {"normalizer": NFC},
    "o200k": byte_level(steps(split(O200K_PATTERN, "Removed", invert=True), BYTES_ONLY)),
    "deepseek": byte_level(steps(*map(split, DEEPSEEK_PATTERNS), BYTES_ONLY), MASK),
    "bytes without words": byte_level(BYTES_ONLY),
    "llama 2": sentencepiece(None, steps(PREPEND, REPLACE, name="normalizers"), MASK),
    "gemma": sentencepiece(
        {**split("-"), "pattern": {"String": " "}, "behavior": "MergedWithPrevious"},
        REPLACE,
        THINK,
        RUN,
    ),
    "words, a space before the first": sentencepiece(spaces("first"), None, THINK, RUN),
    "words, a space before each": sentencepiece(spaces("always"), NFC, THINK),
    "no space put first": sentencepiece(spaces("never"), None),
    "no words": sentencepiece(spaces("first", splits=False), None, RUN),
    "unigram": unigram(spaces("always")),
}

NOT_CUT: dict[str, Spec] = {
    "merges across spaces": byte_level(BYTES_ONLY),
    "the whole text may be one token": byte_level(BYTES_ONLY, ignore_merges=True),
    "merges that are drawn by lot": byte_level(BYTES, dropout=0.1),
    "scores of a whole text": unigram(spaces("always", splits=False)),
    "an unknown normalizer": byte_level(BYTES) | {"normalizer": {"type": "Lowercase"}},
    "an unknown pre-tokenizer": byte_level(steps({"type": "Punctuation", "behavior": "Isolated"})),
    "an unknown step behind a split": byte_level(steps(BYTES, split(GPT2_PATTERN))),
    "an unknown pattern": byte_level(steps(split(r"\p{L}+|\s+"), BYTES_ONLY)),
    "a pattern across spaces": byte_level(steps(split(r"\p{L}+ \p{L}+|\s+"), BYTES_ONLY)),
    "matches that are glued": byte_level(
        steps(split(GPT2_PATTERN, "MergedWithPrevious"), BYTES_ONLY)
    ),
    "an added token with a space": byte_level(BYTES, added("is so")),
    "an added token that takes spaces": byte_level(BYTES, added("<x>", rstrip=True)),
    "an added token that is a word": byte_level(BYTES, added("is", single_word=True)),
    "a space before each part": sentencepiece(
        None, steps(PREPEND, REPLACE, name="normalizers"), THINK
    ),
}

TOKENIZERS: dict[str, Tokenizer] = {}

WORDS = [
    *(" ", "  ", "   ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u200b", "\u180e", "\x1c", "\x85"),
    *("a", "is", "The capital", "isn't", "'S", "'", "42", "1", "東京", "é", "e\u0301", "\u0301"),
    *("😀", ".", "...", "_", "-", "▁", "▁▁", "<think>", "<mask>", "<|im_end|>", "\u212a", "\ufdfa"),
    *("x" * 40, "7" * 20, " " * 30),
]
TEXT = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=10).map("".join)
some = settings(max_examples=60, deadline=None)


def of_kind(kind: str) -> Tokenizer:
    """Ours of that kind; made at its first use."""
    if kind not in TOKENIZERS:
        TOKENIZERS[kind] = tokenizer(CUT[kind])
    return TOKENIZERS[kind]


def cuts(spec: Spec, vocabulary: tuple[bytes, ...] = ()) -> object:
    """What is found for the spec as the library itself writes it."""
    written = json.loads(Rust.from_str(json.dumps(spec)).to_str())
    return split_pattern(written, vocabulary)


@pytest.mark.parametrize("kind", CUT)
def test_parts_have_the_tokens_of_the_whole(kind: str) -> None:
    """A batch of texts of which parts repeat is encoded as each text alone is."""
    ours = of_kind(kind)
    assert cuts(CUT[kind]) is not None

    @some
    @given(text=TEXT)
    def check(text: str) -> None:
        whole = ours.encode(text)
        assert ours.encode_batch([text] * (len(text) + 2)) == [whole] * (len(text) + 2)

    check()


@pytest.mark.parametrize("kind", CUT)
def test_nothing_before_the_unstable_suffix_changes(kind: str) -> None:
    """Whatever follows a text, its tokens before the suffix stay, and the rest is the suffix's."""
    ours = of_kind(kind)

    @some
    @given(text=TEXT, following=TEXT)
    def check(text: str, following: str) -> None:
        ids = ours.encode(text)
        suffix = ours.unstable_suffix(text, ids)
        assert text.endswith(suffix)
        kept = ids[: len(ids) - len(ours.encode(suffix))]
        assert ours.encode(text + following) == kept + ours.encode(suffix + following)

    check()


@pytest.mark.parametrize("kind", CUT)
def test_the_unstable_suffix_is_the_last_word(kind: str) -> None:
    """Where it is known how texts can be cut, no more is tokenized than must be."""
    ours = of_kind(kind)
    text = "The capital of France  is 42 and" * 20
    suffix = ours.unstable_suffix(text, ours.encode(text))
    assert suffix.strip() == "and"


@pytest.mark.parametrize("kind", NOT_CUT)
def test_what_is_not_known_is_not_cut(kind: str) -> None:
    """One step that may look across a place keeps texts whole."""
    crossing = (b"e ", b"s t") if kind == "merges across spaces" else ()
    assert cuts(NOT_CUT[kind], crossing) is None


@pytest.mark.parametrize("kind", ["an unknown pattern", "a pattern across spaces"])
def test_texts_of_an_unknown_pattern_are_tokenized_whole(kind: str) -> None:
    """Each text of a batch has the tokens that the library gives it, and all of it may change."""
    ours = tokenizer(NOT_CUT[kind])
    library = Rust.from_str(json.dumps(NOT_CUT[kind]))

    control = [token["content"] for token in NOT_CUT[kind]["added_tokens"]]

    @some
    @given(text=TEXT)
    def check(text: str) -> None:
        assume(not any(spelled in text for spelled in control))  # it is text here, never a token
        ids = library.encode(text, add_special_tokens=False).ids
        assert ours.encode_batch([text] * 3) == [ids] * 3
        assert ours.unstable_suffix(text, ids) == text

    check()


def test_a_suffix_that_does_not_hold_is_not_used() -> None:
    """Should the tokens of the suffix not end those of the text, the whole text is taken."""
    ours = of_kind("gpt2")
    text = "The capital is"
    assert ours.unstable_suffix(text, ours.encode(text)) == " is"
    assert ours.unstable_suffix(text, [*ours.encode("The capital i"), 0]) == text
