"""The tokens that go on with a text, against looking at every token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.decoding.marginal.vocabulary_trie import Step, VocabularyTrie, vocabulary_trie
from model_runtime.tokenization.tokenizer import Tokenizer
from tests.tiny_models import sentencepiece_tokenizer, tiny_tokenizer

PIECES = st.lists(st.sampled_from([b"a", b"b", b"\xfe", b"\xff"]), max_size=5).map(b"".join)


@given(
    spellings=st.lists(PIECES, max_size=40),
    rest=PIECES,
    excluded=st.frozensets(st.integers(0, 9), max_size=3),
    spare=st.integers(0, 3),
)
def test_continuations_are_those_of_the_definition(
    spellings: list[bytes], rest: bytes, excluded: frozenset[int], spare: int
) -> None:
    """Of every rest, also where tokens are spelled alike, or end in the largest byte."""
    trie = VocabularyTrie(spellings, len(spellings) + spare, excluded)
    text = {i: t for i, t in enumerate(spellings) if t and i not in excluded}
    found = trie.continuations(rest)
    steps = {Step(i, len(t)) for i, t in text.items() if rest.startswith(t) and t != rest}
    assert set(found.steps) == steps and len(found.steps) == len(steps)
    assert [step.size for step in found.steps] == sorted(step.size for step in steps)
    assert list(found.exact) == [i for i, t in text.items() if t == rest]
    assert list(found.covering) == [i for i, t in text.items() if t.startswith(rest)]
    assert found.covering.vocab_size == trie.head_rows
    assert trie.longest == max(map(len, text.values()), default=0)


@given(spellings=st.lists(PIECES, max_size=12), text=PIECES)
def test_spelled_tokens_are_the_text(spellings: Sequence[bytes], text: bytes) -> None:
    """The longest token first, or nothing where that leads nowhere."""
    trie = VocabularyTrie(spellings, len(spellings))
    ids = trie.spell(text)
    assert b"".join(spellings[token_id] for token_id in ids) in (text, b"")
    if ids:
        assert len(spellings[ids[0]]) == max(len(t) for t in spellings if t and text.startswith(t))


def test_a_rest_that_begins_many_tokens_is_looked_up_and_not_collected() -> None:
    """Sets of a large part of the vocabulary are made once, with the trie."""
    spellings = [b" " + str(number).encode() for number in range(5000)]
    trie = VocabularyTrie(spellings, len(spellings))
    assert trie.continuations(b" ").covering is trie.continuations(b"").covering or (
        trie.continuations(b" ").covering == trie.continuations(b"").covering
    )
    trie._find.cache_clear()
    first = trie.continuations(b" 1").covering
    trie._find.cache_clear()
    assert trie.continuations(b" 1").covering is first


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_a_tokenizers_own_tokens_are_text_but_for_control_tokens(kind: str) -> None:
    """Made once a tokenizer; ends and rows of the head without a token are left out."""
    tokenizer = Tokenizer(tiny_tokenizer(kind), head_rows=400)
    trie = vocabulary_trie(tokenizer, frozenset({7}))
    assert vocabulary_trie(tokenizer, frozenset({7})) is trie
    text = [i for i in range(400) if trie.is_text(i)]
    bytes_of = {i: tokenizer.token_bytes(i) for i in range(400)}
    assert text == [i for i in range(400) if bytes_of[i] and i not in {7, *tokenizer.control_ids}]
    sentence = "The sky isn't blue.\n"
    assert b"".join(bytes_of[i] for i in trie.spell(sentence.encode())) == sentence.encode()


def test_bytes_of_sentencepiece_are_tokens_like_letters() -> None:
    """Two ways to spell one byte are both found."""
    tokenizer = Tokenizer(sentencepiece_tokenizer())
    trie = vocabulary_trie(tokenizer, frozenset())
    spelled = [tokenizer.encode("a")[-1], 3 + ord("a")]
    assert sorted(trie.continuations(b"a").exact) == sorted(spelled)
