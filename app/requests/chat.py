"""Messages as token ids, in the model's own chat template.

How they end::

    ... user: Why? |assistant:            "reply"   the assistant speaks next
    ... |assistant: Because               "open"    the last message goes on
    ... |assistant: Because.|             "closed"  nothing is asked behind it

Messages that end with the assistant's words go on from there; nothing closes them but a request
that says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal
from uuid import uuid4

from app.schemas.bounds import MAX_CHAT_CHARS
from app.schemas.request import Message
from model_runtime import InvalidQuery, Tokenizer

Ending = Literal["reply", "open", "closed"]

Pieces = tuple[tuple[str, bool], ...]
"""Rendered text in pieces; True for one that is plain text whatever it spells."""


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages as the model reads them.

    Attributes:
        ids: the token path.
        before: what stands before the last message where that is left open; else all of it.
        message: the last message as the template shows it where it is left open; else empty.
    """

    ids: tuple[int, ...]
    before: Pieces
    message: str

    def message_start(self, tokenizer: Tokenizer) -> int:
        """The index of the first token that holds any of the open message.

        It may hold the end of what stands before the message as well, where the tokenizer merges
        the two. Without an open message it is the number of tokens.
        """
        if not self.message:
            return len(self.ids)
        pairs = zip(_encoded(tokenizer, self.before), self.ids, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def natural_ending(messages: Sequence[Message]) -> Ending:
    """How messages end where nothing is said of it."""
    return "open" if messages[-1].role == "assistant" else "reply"


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    param: str,
    ending: Ending | None = None,
) -> Chat:
    """The template's own control tokens as ids; those that a message spells stay text.

    A content that spells one is taken out, the template is rendered around a marker, and
    the content is put back as plain text.

    Args:
        tokenizer: the model's.
        messages: at least one.
        param: the field that errors name.
        ending: None for the natural one.

    Raises:
        InvalidQuery: there is no chat template, or it refuses the messages, or does not show the
            one that is left open; or they are too long, or cannot be told in tokens.
    """
    ending = natural_ending(messages) if ending is None else ending
    hidden = _Hidden()
    for index, message in enumerate(messages):
        tokenizer.check_text(message.content, f"{param}.{index}.content")
    if sum(len(message.content) for message in messages) > MAX_CHAT_CHARS:
        raise InvalidQuery(f"messages hold more than {MAX_CHAT_CHARS} characters", param)
    turns = [
        {"role": message.role, "content": hidden.hide(tokenizer, message.content)}
        for message in messages
    ]
    if ending == "open":
        return _open(tokenizer, turns, hidden, param)
    rendered = _rendered(tokenizer, turns, param, add_generation_prompt=ending == "reply")
    pieces = tuple(hidden.pieces(rendered))
    return Chat(_encoded(tokenizer, pieces), pieces, "")


def _open(tokenizer: Tokenizer, turns: list[dict[str, str]], hidden: _Hidden, param: str) -> Chat:
    """Render a mark behind the last message, and cut there, as transformers'
    ``continue_final_message`` does.

    The blank behind the mark tells a template that strips contents from one that does not: a
    blank at the end of a message is stripped by the one, and part of the path with the other.
    """
    content, mark = turns[-1]["content"], uuid4().hex
    marked = [*turns[:-1], {**turns[-1], "content": f"{content}{mark} "}]
    rendered = _rendered(tokenizer, marked, param, add_generation_prompt=False)
    shown, found, rest = rendered.rpartition(mark)
    if content.strip() and not rest.startswith(" "):
        shown = shown.rstrip()
    forms = (content, content.lstrip(), content.rstrip(), content.strip())
    form = next((one for one in forms if shown.endswith(one)), None)
    if not found or form is None:
        raise InvalidQuery(
            "the chat template does not show the last message as it is, so that nothing can go "
            "on from it",
            f"{param}.{len(turns) - 1}.content",
        )
    before = tuple(hidden.pieces(shown[: len(shown) - len(form)]))
    message = "".join(text for text, _ in hidden.pieces(form))
    return Chat(_encoded(tokenizer, tuple(hidden.pieces(shown))), before, message)


def _encoded(tokenizer: Tokenizer, pieces: Pieces) -> tuple[int, ...]:
    ids: list[int] = []
    for piece, is_text in pieces:
        ids += tokenizer.encode(piece, parse_special=not is_text)
    return tuple(ids)


class _Hidden:
    """Contents taken out of messages, and the markers that stand in for them."""

    def __init__(self) -> None:
        self._nonce = uuid4().hex
        self._contents: list[str] = []

    def hide(self, tokenizer: Tokenizer, content: str) -> str:
        """``content`` as the template may see it: as it is, where it spells no control token."""
        if tokenizer.encode(content, parse_special=True) == tokenizer.encode(content):
            return content
        # White space at the ends stays in view: many templates strip it.
        core = content.strip()
        marker = f"{self._nonce}{len(self._contents):06d}"
        self._contents.append(core)
        return content.replace(core, marker, 1)

    def pieces(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """What was rendered, cut at the markers; True for a content that is plain text."""
        split = re.split(rf"{self._nonce}(\d{{6}})", rendered)
        for place, piece in enumerate(split):
            yield (self._contents[int(piece)], True) if place % 2 else (piece, False)


def _rendered(
    tokenizer: Tokenizer,
    turns: Sequence[dict[str, str]],
    param: str,
    *,
    add_generation_prompt: bool,
) -> str:
    try:
        return tokenizer.render_chat(turns, add_generation_prompt=add_generation_prompt)
    except InvalidQuery as error:
        raise error.at(param) from error
