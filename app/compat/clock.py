"""The time that a request has, looked at while its texts become tokens.

A thread cannot be stopped from outside: what takes long in one asks the clock as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Self

from app.requests.deadline import Deadline
from app.requests.limits import Limits
from app.requests.worker_threads import check_wanted
from app.schemas.request import ServingOptions
from model_runtime import Tokenizer

CHUNK_TEXTS: Final = 256
CHUNK_CHARS: Final = 1 << 17
"""Of texts that are tokenized between two looks; a single text is never divided."""


class Clock:
    """That of the request at hand.

    Args:
        timeout_ms: what the request has from its arrival on; None for no end.
    """

    def __init__(self, timeout_ms: int | None = None) -> None:
        self._deadline = Deadline.after(timeout_ms)

    @classmethod
    def of(cls, serving_options: ServingOptions, limits: Limits) -> Self:
        """That of a request; the operator's own limit where it names none."""
        return cls(serving_options.timeout_ms or limits.default_timeout_ms)

    def check(self) -> None:
        """Raise when the time is over (``DeadlineExceeded``), or nobody waits any more."""
        self._deadline.check()
        check_wanted()

    def encode(
        self, tokenizer: Tokenizer, texts: Sequence[str], *, parse_special: bool = False
    ) -> list[list[int]]:
        """What ``tokenizer.encode_batch`` answers, unless the time runs out first.

        Raises:
            DeadlineExceeded: it did.
            InvalidQuery: a text cannot be told in tokens.
        """
        encoded: list[list[int]] = []
        for chunk in _chunks(texts):
            self.check()
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
