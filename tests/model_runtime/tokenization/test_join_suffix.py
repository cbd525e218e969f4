"""Joins by the unstable end of the context are those of whole texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.errors import InvalidQuery
from model_runtime.tokenization.join import Boundary, Join, join
from model_runtime.tokenization.tokenizer import Tokenizer
from tests.model_runtime.tokenization.tokenizer_kinds import (
    BYTES,
    BYTES_ONLY,
    DIGITS,
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
)

KINDS: dict[str, Spec] = {
    "smollm": byte_level(steps(DIGITS, BYTES)),
    "llama 3": byte_level(steps(split(LLAMA3_PATTERN), BYTES_ONLY), ignore_merges=True),
    "qwen": byte_level(BYTES, added("<think>"), added("   ")) | {"normalizer": NFC},
    "llama 2": sentencepiece(None, steps(PREPEND, REPLACE, name="normalizers")),
    "words": sentencepiece(spaces("first"), None),
    "never cut": byte_level(steps({"type": "Punctuation", "behavior": "Isolated"}, BYTES)),
}
TOKENIZERS = {kind: tokenizer(spec) for kind, spec in KINDS.items()}

WORDS = [
    " ",
    "   ",
    "\n",
    "is",
    " is",
    "n't",
    "The capital",
    "42",
    " 7",
    "東京",
    "e\u0301",
    "\u0301",
]
PIECES = st.sampled_from([*WORDS, "<think>", ".", "'", "\ud800", "x" * 30]) | st.text(max_size=3)
TEXT = st.lists(PIECES, max_size=6).map("".join)
some = settings(max_examples=200, deadline=None)


@pytest.fixture(scope="module")
def real(real_folder: Path) -> Tokenizer:
    """The default model's tokenizer."""
    return Tokenizer.load(real_folder)


class WholeTexts:
    """A tokenizer to which every text is unstable, each encoded alone: the meaning of a join."""

    def __init__(self, ours: Tokenizer) -> None:
        self._ours = ours

    def __getattr__(self, name: str) -> object:
        return getattr(self._ours, name)

    def unstable_suffix(self, text: str, ids: Sequence[int]) -> str:
        """All of it."""
        return text

    def encode_batch(self, texts: Sequence[str], check: object) -> list[list[int]]:
        """Each by itself."""
        return [self._ours.encode(text) for text in texts]


def outcome(ours: object, *args: object, **settings: object) -> object:
    """The join with errors as what they say, or the error of the whole request."""
    try:
        joined: Join = join(ours, *args, **settings)  # type: ignore[arg-type]
    except InvalidQuery as error:
        return str(error), error.param
    candidates = [
        (str(one), one.param) if isinstance(one, InvalidQuery) else one for one in joined.candidates
    ]
    parts = (joined.policy, joined.prefix, joined.shift_bytes, joined.context_tokens)
    return (*parts, joined.bos_added, candidates)


@some
@given(
    kind=st.sampled_from(list(KINDS)),
    context=TEXT,
    candidates=st.lists(TEXT, max_size=6),
    boundary=st.sampled_from([None, Boundary.SEPARATE]),
    pinned=st.none() | st.integers(1, 4),
)
def test_a_join_is_that_of_whole_texts(
    kind: str, context: str, candidates: list[str], boundary: Boundary | None, pinned: int | None
) -> None:
    """Prefix, start, tokens, tails and errors are the same, whatever the tokenizer knows."""
    ours, settings = TOKENIZERS[kind], {"boundary": boundary, "start_token": pinned}
    for repeated in (candidates, candidates * 5):
        expected = outcome(WholeTexts(ours), context, repeated, **settings)
        assert outcome(ours, context, repeated, **settings) == expected


@pytest.mark.real_model
@given(context=TEXT, candidates=st.lists(TEXT, min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_the_same_holds_of_the_default_tokenizer(
    real: Tokenizer, context: str, candidates: list[str]
) -> None:
    """Real merges of a real vocabulary meet the end of the context in the same way."""
    expected = outcome(WholeTexts(real), context, candidates * 5)
    assert outcome(real, context, candidates * 5) == expected


@pytest.mark.real_model
def test_only_the_last_word_is_tokenized_again(
    real: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long context costs a candidate nothing but its last word."""
    context = "The capital of France is " * 1_000 + "not"
    encoded: list[str] = []
    plain = real.encode_batch

    def watched(texts: Sequence[str], **settings: Any) -> list[list[int]]:
        encoded.extend(texts)
        return plain(texts, **settings)

    monkeypatch.setattr(real, "encode_batch", watched)
    joined = join(real, context, [" Rome", "ional", " Rome"])
    assert encoded == [" not Rome", " notional"]
    assert joined.candidates[0] == joined.candidates[2]
    assert joined.context_tokens == len(real.encode(context))
