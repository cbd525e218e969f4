"""The exact bytes that each entry of a vocabulary stands for. Pure: no tokenizer library.

Two families spell bytes differently::

    byte-level      every byte has a printable character of its own     "ĠParis"   20 50 61 72 69 73
    sentencepiece   "▁" is a space, "<0xNN>" is a byte, the rest UTF-8  "▁Paris"   20 50 61 72 69 73
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from model_runtime.errors import UnsupportedModel
from model_runtime.tokenization.split_points import steps_of

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def vocabulary_bytes(spec: Mapping[str, Any], vocab: Mapping[str, int]) -> tuple[bytes, ...]:
    """Bytes by token id; ids without a token are empty.

    Args:
        spec: the tokenizer in the JSON form of the ``tokenizers`` library.
        vocab: every token's spelling and id, added ones included.

    Raises:
        UnsupportedModel: a vocabulary of another family, whose bytes cannot be told.
    """
    spell = _family(spec)
    result = [b""] * (1 + max(vocab.values(), default=-1))
    for spelling, token_id in vocab.items():
        result[token_id] = spell(spelling)
    for token in spec.get("added_tokens", ()):
        # matched in the text as they are written, before any spelling
        result[token["id"]] = token["content"].encode()
    return tuple(result)


def uncovered_bytes(spec: Mapping[str, Any], vocabulary: tuple[bytes, ...]) -> bytes:
    """Bytes of UTF-8 that a byte-level vocabulary has no token for, and would drop silently.

    SmolLM2's lacks six control characters and the first bytes of planes 4 to 11, for example.
    """
    if _family(spec) is not _byte_level:
        return b""
    covered = {token[0] for token in vocabulary if len(token) == 1}
    return bytes(byte for byte in range(0xF5) if byte not in (0xC0, 0xC1) and byte not in covered)


def longest_token(spec: Mapping[str, Any], vocabulary: tuple[bytes, ...]) -> int | None:
    """Characters of a text that one token stands for at most, where texts spell no control token.

    None where no bound is known: steps may leave a part of the text out, an unknown token stands
    for any number of characters, and an added one may swallow the blanks around it.

    Args:
        spec: as ``vocabulary_bytes`` takes it.
        vocabulary: what that returns.
    """
    model, normalizers = spec["model"], steps_of(spec.get("normalizer"), "normalizers")
    splits = steps_of(spec.get("pre_tokenizer"), "pretokenizers")
    unknown = model.get("unk_token") is not None or model.get("unk_id") is not None
    if (unknown and not model.get("byte_fallback")) or model["type"] not in ("BPE", "Unigram"):
        return None
    if not all(map(_keeps_text, (*normalizers, *splits))):
        return None
    if any(t["lstrip"] or t["rstrip"] for t in spec.get("added_tokens", ()) if not t["special"]):
        return None
    # No character of NFC stands for more than four.
    composed = 4 if any(step["type"] == "NFC" for step in normalizers) else 1
    return composed * max(map(len, vocabulary), default=1)


def _keeps_text(step: Mapping[str, Any]) -> bool:
    """Whether a step of normalizer or pre-tokenizer is known to leave nothing out of a text."""
    if step["type"] == "Split":
        return bool(step["behavior"] != "Removed")
    if step["type"] == "Replace":
        return bool(step["pattern"] == {"String": " "} and step["content"])
    return step["type"] in ("ByteLevel", "Digits", "Metaspace", "NFC", "Prepend")


def _family(spec: Mapping[str, Any]) -> Callable[[str], bytes]:
    kinds = set(_decoder_kinds(spec.get("decoder") or {}))
    if "ByteLevel" in kinds:
        return _byte_level
    if kinds & {"Metaspace", "Replace", "ByteFallback"}:
        return _sentencepiece
    raise UnsupportedModel(
        "the tokenizer is neither byte-level nor SentencePiece, so its tokens have no exact bytes"
    )


def _decoder_kinds(decoder: Mapping[str, Any]) -> Iterator[str]:
    yield str(decoder.get("type"))
    for part in decoder.get("decoders", ()):
        yield from _decoder_kinds(part)


def _printable_bytes() -> dict[str, int]:
    """GPT-2's alphabet: visible Latin-1 characters are themselves, the others move to 256 + n."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    alphabet = {chr(byte): byte for byte in visible}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(hidden)}


_BYTE_OF = _printable_bytes()


def _byte_level(spelling: str) -> bytes:
    if all(character in _BYTE_OF for character in spelling):
        return bytes(_BYTE_OF[character] for character in spelling)
    return spelling.encode()


def _sentencepiece(spelling: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(spelling)
    return bytes([int(byte[1], 16)]) if byte else spelling.replace("▁", " ").encode()
