"""The bound on what ``joint`` tokenizes again for each candidate."""

from __future__ import annotations

import pytest

from app.requests.limits import check_joined_chars
from app.schemas.bounds import MAX_JOINED_CHARS
from model_runtime import InvalidQuery, Tokenizer
from tests.tiny_models import tiny_tokenizer

WORDS = "The capital of France is " * 800
COUNT = MAX_JOINED_CHARS // len(WORDS) + 1
LLAMA = Tokenizer(tiny_tokenizer("llama"))


def test_only_the_end_of_the_context_counts() -> None:
    """Behind a long context of words only the last one is tokenized for each candidate."""
    check_joined_chars(LLAMA, WORDS + "not", ["a"] * COUNT)


def test_a_context_that_cannot_be_cut_counts_in_full() -> None:
    """Without a space in it there is no end that could be tokenized alone."""
    with pytest.raises(InvalidQuery, match=f"behind {len(WORDS)} characters") as caught:
        check_joined_chars(LLAMA, "x" * len(WORDS), ["a"] * COUNT)
    assert caught.value.param == "candidates"


def test_a_bad_context_is_named() -> None:
    """It is looked at before anything is said about the candidates."""
    with pytest.raises(InvalidQuery, match="lone surrogate") as caught:
        check_joined_chars(LLAMA, WORDS + "\ud800", ["a"] * COUNT)
    assert caught.value.param == "context"


def test_ids_are_not_joined_again() -> None:
    """Where anything is given as ids nothing is tokenized behind the context."""
    check_joined_chars(LLAMA, [1] * 1_000_000, ["a"] * COUNT)
    check_joined_chars(LLAMA, WORDS, [[1]] * COUNT)
