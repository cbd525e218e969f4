"""A filled template as token ids, for many documents at once.

The template is cut at its own control tokens. What lies between two of them is one text, in which
query and document stand as if they had been written there, and it is tokenized as one: tokens
merge as in any text, and nothing that is filled in can spell a control token::

    <|im_start|>user\\nQuery: {query}\\nDocument: {document}<|im_end|>\\n
    [ ids      ][ run: one text for each document          ][ ids   ][ run ]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from app.compat.rerank.templates import Ids, Slot, Template
from app.requests.encoding import encode_in_chunks
from model_runtime import Tokenizer

SlotValues = Mapping[Slot, str]


@dataclass(frozen=True, slots=True)
class TextSegment:
    """A text between control tokens; it may be empty.

    Attributes:
        pieces: text of the template, and what is filled in.
    """

    pieces: tuple[str | Slot, ...] = ()

    def filled(self, filling: SlotValues) -> str:
        """The text with this in its slots."""
        return "".join(
            filling[piece] if isinstance(piece, Slot) else piece for piece in self.pieces
        )


Segment = TextSegment | Ids


def segments_of(
    tokenizer: Tokenizer, template: Template
) -> tuple[tuple[Segment, ...], TextSegment]:
    """The template between its control tokens: all but the last run, and that."""
    control = _control_tokens(tokenizer)
    segments: list[Segment] = []
    run: list[str | Slot] = []
    for piece in template.pieces:
        parts = [piece] if isinstance(piece, Slot | tuple) else _cut(tokenizer, control, piece)
        for part in parts:
            if isinstance(part, tuple):
                segments += [TextSegment(tuple(run)), part]
                run = []
            else:
                run.append(part)
    return tuple(segments), TextSegment(tuple(run))


def encode_segments(
    tokenizer: Tokenizer, segments: Sequence[Segment], fillings: Sequence[SlotValues]
) -> list[Ids]:
    """The tokens of these segments with each of the fillings in them; equal texts only once.

    Raises:
        DeadlineExceeded: the time ran out first.
    """
    paths: list[Ids] = [()] * len(fillings)
    for segment in segments:
        if isinstance(segment, tuple):
            paths = [path + segment for path in paths]
            continue
        texts = [segment.filled(one) for one in fillings]
        distinct = list(dict.fromkeys(texts))
        encoded = dict(
            zip(distinct, map(tuple, encode_in_chunks(tokenizer, distinct)), strict=True)
        )
        paths = [path + encoded[text] for path, text in zip(paths, texts, strict=True)]
    return paths


def _cut(tokenizer: Tokenizer, control: re.Pattern[str] | None, text: str) -> Iterator[str | Ids]:
    """A text of the template: what is up to its first control token and behind its last is text."""
    found = list(control.finditer(text)) if control else []
    if not found:
        yield text
        return
    first, last = found[0].start(), found[-1].end()
    yield text[:first]
    yield tuple(tokenizer.encode(text[first:last], parse_special=True))
    yield text[last:]


@lru_cache(maxsize=4)
def _control_tokens(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    texts = {tokenizer.token_text(token_id) for token_id in tokenizer.control_ids} - {""}
    # Of two that begin alike the longer one is meant.
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first))) if texts else None
