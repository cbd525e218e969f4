"""Of every known pattern: a text has the matches of its parts, and where those begin."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.models.qwen2 import tokenization_qwen2
from transformers.models.qwen3_5 import tokenization_qwen3_5

from model_runtime.tokenization.pretokenizer_patterns import (
    MATCH_AT_SPLIT_POINTS,
    MATCH_BETWEEN_SPLIT_POINTS,
)

ALPHABET = (" ", "\n", "'", "s", "S", "1", "/", "東", "\u0301")
"""One character, at least, of each kind that the patterns tell from others."""

VISIBLE = tuple("'sS1/東")
"""Those of them that a split point may follow."""

CROSSING = (
    r"\p{L}+ \p{L}+|\s+",
    r"a\s?b|\S+\s*",
    r"[^\r\n]+",
    r"[^\n]+|[\n]+",
    r"\s+(?!\S)|\S+(?! )",
)
"""Patterns whose matches do depend on what is beyond a split point."""


def matches(split: Split, text: str) -> list[tuple[int, int]]:
    return [span for _, span in split.pre_tokenize_str(text)]


def matches_only(pattern: str) -> Split:
    return Split(Regex(pattern), "removed", invert=True)


def texts(longest: int) -> Iterator[str]:
    for length in range(longest + 1):
        yield from map("".join, product(ALPHABET, repeat=length))


def pairs() -> Iterator[tuple[str, str]]:
    """What may be around a split point: all that is short, and longer texts by chance."""
    before = [text for text in texts(3) if text.endswith(VISIBLE)]
    yield from product(before, [" " + text for text in texts(1)])
    rng = random.Random(0)
    for _ in range(500):
        left, right = ("".join(rng.choices(ALPHABET, k=rng.randint(0, 12))) for _ in "12")
        yield left + rng.choice(VISIBLE), " " + right


def first_difference(pattern: str) -> tuple[str, str] | None:
    """A text and what follows it, whose matches are not those of the two; None for none."""
    split = matches_only(pattern)
    known: dict[str, list[tuple[int, int]]] = {}
    for left, right in pairs():
        for text in (left, right):
            known[text] = known.get(text) or matches(split, text)
        shifted = [(len(left) + first, len(left) + stop) for first, stop in known[right]]
        if matches(split, left + right) != known[left] + shifted:
            return left, right
    return None


@pytest.mark.parametrize("pattern", sorted(MATCH_AT_SPLIT_POINTS | MATCH_BETWEEN_SPLIT_POINTS))
def test_a_text_has_the_matches_of_its_parts(pattern: str) -> None:
    """Whatever is before a split point and behind it."""
    assert first_difference(pattern) is None


@pytest.mark.parametrize("pattern", sorted(MATCH_AT_SPLIT_POINTS))
def test_a_match_begins_at_every_split_point(pattern: str) -> None:
    """Whatever follows the space."""
    split = matches_only(pattern)
    for _, text in pairs():
        assert matches(split, text)[0][0] == 0, text


@pytest.mark.parametrize("pattern", CROSSING)
def test_a_match_across_a_split_point_would_be_found(pattern: str) -> None:
    """The texts above are enough to tell."""
    assert first_difference(pattern) is not None


def test_patterns_are_spelled_as_transformers_spells_them() -> None:
    """Those that it writes itself, for models whose files name no pattern."""
    written = {
        *GGUF_PRE_TOKENIZER_SPLITS.values(),
        tokenization_qwen2.PRETOKENIZE_REGEX,
        tokenization_qwen3_5.PRETOKENIZE_REGEX,
    }
    assert len(written) == 5
    assert written <= MATCH_AT_SPLIT_POINTS
