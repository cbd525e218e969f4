"""What is said of a split pattern: never that it keeps words apart where it might not."""

from __future__ import annotations

import pytest

from model_runtime.tokenization.pretokenizer_regex import SplitPattern, read_split_pattern
from tests.model_runtime.tokenization.tokenizer_kinds import (
    DEEPSEEK_PATTERN,
    GPT2_PATTERN,
    LLAMA3_PATTERN,
    O200K_PATTERN,
    QWEN_PATTERN,
)


@pytest.mark.parametrize(
    "pattern", [GPT2_PATTERN, LLAMA3_PATTERN, QWEN_PATTERN, O200K_PATTERN, DEEPSEEK_PATTERN]
)
def test_published_patterns_keep_words_apart(pattern: str) -> None:
    """They begin a match at every space behind a visible character."""
    assert read_split_pattern(pattern) == SplitPattern(takes_spaces=True)


@pytest.mark.parametrize(
    ("pattern", "takes_spaces"),
    [
        (r"\p{N}{1,3}", False),
        (r"[a-z]+|[^\s]+", False),
        (r" ?\p{L}+", False),
        (r"\s+(?!\S)", False),
        (r" {2}|a", False),
        (r" +|a", True),
        (r"\S|\s", True),
    ],
)
def test_a_split_at_every_space_is_told_from_none(pattern: str, takes_spaces: bool) -> None:
    """Whether a lone space is a match of its own, whatever follows."""
    assert read_split_pattern(pattern) == SplitPattern(takes_spaces)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\p{L}+ \p{L}+",
        r"a\s?b",
        r"\S+\s*",
        r"[^\d]+",
        r"[a\s]+",
        r"[!-~ ]{2}",
        r"\P{N}+",
        r"x{2} ",
        r"a(?: )",
        r"[^\r\n\p{L}]+\p{L}",
        r"\s+|\w+ \w+",
        r"(?i: a|b)|\s+",
    ],
)
def test_a_match_across_a_space_is_found(pattern: str) -> None:
    """A visible character, then a space: such a pattern is not answered."""
    assert read_split_pattern(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        r"",
        r" *",
        r"a|",
        r".",
        r"^a",
        r"(?<=a)\s",
        r"\bis\b",
        r"\S(?! )",
        r"a(?=b)",
        r"\s+(?!\S)?",
        r"(a)\1",
        r"[^a&&b]",
        r"[[:alpha:]]",
        r"(?x) a",
        r"(?i:(?:a|b)c)",
        r"[a",
        r"a)",
    ],
)
def test_other_syntax_is_not_answered(pattern: str) -> None:
    """What looks around, matches nothing, or is not read, is not known."""
    assert read_split_pattern(pattern) is None
