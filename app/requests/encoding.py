"""Many texts to token ids on a worker thread that gives up when nobody waits any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from app.requests.worker_threads import check_wanted
from model_runtime import Tokenizer

CHUNK_TEXTS: Final = 256
CHUNK_CHARS: Final = 1 << 17
"""Of texts that are tokenized at once; a single text is never divided."""


def encode_in_chunks(
    tokenizer: Tokenizer, texts: Sequence[str], *, parse_special: bool = False
) -> list[list[int]]:
    """What ``tokenizer.encode_batch`` answers, a chunk of the texts at a time.

    Raises:
        Abandoned: whoever waited for it has left, or its time is over.
        InvalidQuery: a text cannot be told in tokens.
    """
    encoded: list[list[int]] = []
    for chunk in _chunks(texts):
        check_wanted()
        encoded += tokenizer.encode_batch(chunk, parse_special=parse_special)
    return encoded


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    first = characters = 0
    for place, text in enumerate(texts):
        full = place - first == CHUNK_TEXTS or characters + len(text) > CHUNK_CHARS
        if full and place > first:
            yield texts[first:place]
            first, characters = place, 0
        characters += len(text)
    if first < len(texts):
        yield texts[first:]
