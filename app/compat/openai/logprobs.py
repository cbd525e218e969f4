"""Tokens as OpenAI's completions show them: by a text that stands for one token only."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from app.compat.openai.response import CompletionLogprobs
from model_runtime import Tokenizer


class Alternative(Protocol):
    """One of the most probable tokens at a place."""

    @property
    def id(self) -> int: ...
    @property
    def logprob(self) -> float: ...


@lru_cache(maxsize=2)
def token_names(tokenizer: Tokenizer) -> tuple[str, ...]:
    """[head_rows] a name for each token id, no two alike: its text wherever that is possible.

    ``bytes:\\xe2\\x80`` names bytes that are no text, as OpenAI does, and ``token_id:7`` an id
    whose text is empty or has been given away to a smaller id.
    """
    names: dict[str, None] = {}
    for token_id in range(tokenizer.head_rows):
        name = _plain_name(tokenizer.token_bytes(token_id))
        names[f"token_id:{token_id}" if name is None or name in names else name] = None
    return tuple(names)


def _plain_name(content: bytes) -> str | None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
    # A text that looks like one of the other two kinds could be taken for one.
    return None if not text or text.startswith(("bytes:", "token_id:")) else text


class TextOffsets:
    """Where tokens begin in a text that they make, in characters.

    Args:
        skip: so many bytes at the beginning are no part of the text.
    """

    def __init__(self, skip: int = 0) -> None:
        self._skip = skip
        self._length = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, content: bytes) -> int:
        """Where a token with these bytes begins: so many whole characters come before it."""
        begin = self._length
        shown = content[self._skip :] if self._skip else content
        self._skip -= len(content) - len(shown)
        self._length += len(self._decoder.decode(shown))
        return begin

    def end_part(self) -> None:
        """What comes next is a text of its own: half a character at the end of this one counts."""
        self._length += len(self._decoder.decode(b"", final=True))


class LogprobColumns:
    """The listed tokens of one choice while they are put together.

    Args:
        tokenizer: whose ids they are.
        text_bytes: what a generated token adds to the choice's text, by its id.
        skip: bytes of the prompt's first tokens that an echo does not show.
    """

    def __init__(
        self, tokenizer: Tokenizer, text_bytes: Callable[[int], bytes], skip: int = 0
    ) -> None:
        self._tokenizer = tokenizer
        self._text_bytes = text_bytes
        self._names = token_names(tokenizer)
        self._offsets = TextOffsets(skip)
        self._columns = _empty_columns()

    def add_prompt(
        self,
        token_ids: Sequence[int],
        logprobs: Iterable[float | None],
        top: Iterable[Mapping[int, float] | None],
    ) -> None:
        """All tokens of an echoed prompt, as ``add``; it comes before anything else."""
        self._add(token_ids, logprobs, top, self._tokenizer.token_bytes)
        self._offsets.end_part()

    def pass_prompt(self, content: bytes) -> None:
        """A prompt that is not listed; offsets count from where its text ends."""
        self._offsets = TextOffsets()
        self._offsets.push(content)
        self._offsets.end_part()

    def add(
        self,
        token_ids: Sequence[int],
        logprobs: Iterable[float | None],
        top: Iterable[Mapping[int, float] | None],
    ) -> None:
        """More generated tokens: for each its log-probability, and the alternatives with itself."""
        self._add(token_ids, logprobs, top, self._text_bytes)

    def _add(
        self,
        token_ids: Sequence[int],
        logprobs: Iterable[float | None],
        top: Iterable[Mapping[int, float] | None],
        text_bytes: Callable[[int], bytes],
    ) -> None:
        columns, names, begin = self._columns, self._names, self._offsets.push
        columns.text_offset.extend(begin(text_bytes(token_id)) for token_id in token_ids)
        columns.token_logprobs.extend(logprobs)
        columns.tokens.extend(names[token_id] for token_id in token_ids)
        columns.top_logprobs.extend(
            row if row is None else {names[token_id]: value for token_id, value in row.items()}
            for row in top
        )

    def taken(self) -> CompletionLogprobs:
        """What has been added since the last time."""
        taken, self._columns = self._columns, _empty_columns()
        return taken


def _empty_columns() -> CompletionLogprobs:
    return CompletionLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])


def alternatives(
    row: Sequence[Alternative], count: int, token_id: int, logprob: float
) -> dict[int, float]:
    """The ``count`` most probable tokens, best first, and the token itself."""
    found = {entry.id: entry.logprob for entry in row[:count]}
    found.setdefault(token_id, logprob)
    return found
