"""What the entries of a vocabulary stand for, family by family."""

from __future__ import annotations

import pytest
from tokenizers import pre_tokenizers

from model_runtime.errors import UnsupportedModel
from model_runtime.tokenization.token_bytes import uncovered_bytes, vocabulary_bytes

BYTE_LEVEL = {"decoder": {"type": "ByteLevel"}}
SENTENCEPIECE = {"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]}}


def test_every_byte_has_exactly_one_letter() -> None:
    """The byte-level alphabet covers the 256 bytes, each once."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocab = {letter: index for index, letter in enumerate(alphabet)}
    result = vocabulary_bytes(BYTE_LEVEL, vocab)
    assert sorted(result) == [bytes([byte]) for byte in range(256)]


@pytest.mark.parametrize("text", [" Paris", "\n\t", "é", "日本", "😀", "\x00\x7f\xa0\xad"])
def test_byte_level_spelling_is_undone(text: str) -> None:
    """The library's own spelling of a text gives back the text's bytes."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    [(spelling, _)] = splitter.pre_tokenize_str(text)
    assert vocabulary_bytes(BYTE_LEVEL, {spelling: 0}) == (text.encode(),)


def test_sentencepiece_spelling_is_undone() -> None:
    """A low line is a space, a byte piece is that byte, everything else is itself."""
    vocab = {"▁Paris": 0, "<0x0A>": 1, "é": 2, "▁▁": 3, "<0xZZ>": 4}
    expected = (b" Paris", b"\n", "é".encode(), b"  ", b"<0xZZ>")
    assert vocabulary_bytes(SENTENCEPIECE, vocab) == expected


def test_added_tokens_are_taken_as_written() -> None:
    """An added token matches the text literally, so its letters are not byte letters."""
    spec = BYTE_LEVEL | {"added_tokens": [{"id": 1, "content": "Ġ é"}]}
    assert vocabulary_bytes(spec, {"Ġa": 0, "Ġ é": 1}) == (b" a", "Ġ é".encode())


def test_gaps_are_empty() -> None:
    """An id that no token has stands for no bytes."""
    assert vocabulary_bytes(BYTE_LEVEL, {"a": 0, "b": 2}) == (b"a", b"", b"b")


def test_other_families_are_refused() -> None:
    """A vocabulary whose bytes cannot be told is refused instead of guessed."""
    with pytest.raises(UnsupportedModel, match="neither byte-level nor SentencePiece"):
        vocabulary_bytes({"decoder": {"type": "WordPiece"}}, {"##a": 0})
    with pytest.raises(UnsupportedModel):
        vocabulary_bytes({"decoder": None}, {"a": 0})


def test_bytes_without_a_token_are_named() -> None:
    """Only bytes that occur in UTF-8 count, and only single-byte tokens cover them."""
    alphabet = {letter: index for index, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    assert uncovered_bytes(BYTE_LEVEL, vocabulary_bytes(BYTE_LEVEL, alphabet)) == b""
    partial = vocabulary_bytes(BYTE_LEVEL, {"a": 0, "bc": 1})
    missing = uncovered_bytes(BYTE_LEVEL, partial)
    assert b"a"[0] not in missing
    assert b"b"[0] in missing
    assert max(missing) == 0xF4


def test_sentencepiece_falls_back_on_byte_pieces() -> None:
    """A family with byte pieces or an unknown token has no silent gaps."""
    assert uncovered_bytes(SENTENCEPIECE, (b"a",)) == b""
