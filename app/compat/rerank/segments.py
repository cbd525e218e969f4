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
from dataclasses import dataclass, replace

from app.compat.rerank.prompts import Slot, Template
from model_runtime import Tokenizer

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TextRun:
    """A text between control tokens; it may be empty.

    Attributes:
        before: all of it, or what stands before the document.
        after: what stands behind the document; None where no document is in it.
    """

    before: str = ""
    after: str | None = None

    def then(self, text: str) -> TextRun:
        """The run with more text at its end."""
        if self.after is None:
            return replace(self, before=self.before + text)
        return replace(self, after=self.after + text)

    def around(self, document: str) -> str:
        """The text with this document in it."""
        return self.before if self.after is None else f"{self.before}{document}{self.after}"


Segment = TextRun | Ids


def segments_of(
    tokenizer: Tokenizer, template: Template, values: Mapping[Slot, str]
) -> tuple[tuple[Segment, ...], TextRun]:
    """The template with everything but the document filled in: all but the last run, and that.

    Args:
        tokenizer: whose control tokens count.
        template: of the prompt.
        values: what fills the other slots.
    """
    segments: list[Segment] = []
    run = TextRun()
    for piece in _filled(tokenizer, template, values):
        if isinstance(piece, tuple):
            segments += [run, piece]
            run = TextRun()
        elif piece is Slot.DOCUMENT:
            run = TextRun(run.before, "")
        else:
            run = run.then(piece)
    return tuple(segments), run


def encode_segments(
    tokenizer: Tokenizer, segments: Sequence[Segment], documents: Sequence[str]
) -> list[Ids]:
    """The tokens of these segments with each document in them, in the documents' order."""
    paths: list[Ids] = [()] * len(documents)
    for segment in segments:
        if isinstance(segment, tuple):
            paths = [path + segment for path in paths]
        elif segment.after is None:
            common = tuple(tokenizer.encode(segment.before))
            paths = [path + common for path in paths]
        else:
            encoded = tokenizer.encode_batch([segment.around(document) for document in documents])
            paths = [path + tuple(ids) for path, ids in zip(paths, encoded, strict=True)]
    return paths


def _filled(
    tokenizer: Tokenizer, template: Template, values: Mapping[Slot, str]
) -> Iterator[str | Ids]:
    control = _control_tokens(tokenizer)
    for piece in template.pieces:
        if piece is Slot.DOCUMENT:
            yield piece
        elif isinstance(piece, Slot):
            yield values[piece]
        else:
            yield from _cut(tokenizer, control, piece)


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


def _control_tokens(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    texts = {tokenizer.token_text(token_id) for token_id in tokenizer.control_ids} - {""}
    # Of two that begin alike the longer one is meant.
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first))) if texts else None
