"""The context of a request, from its wire form to what the tokenizer's join takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from app.requests.limits import check_context
from app.requests.token_details import path_bytes
from app.schemas.bounds import MAX_CHAT_CHARS
from app.schemas.request import ContextRequest, Message
from model_runtime import InvalidQuery, ModelInfo, Tokenizer, join


@dataclass(frozen=True, slots=True)
class Prompt:
    """A context in the form that the join takes.

    Attributes:
        content: text, or token ids.
        add_bos: as the join takes it; None for the tokenizer's own rule.
        prefix_token_id: the token to start from, if one was given.
    """

    content: str | tuple[int, ...]
    add_bos: bool | None
    prefix_token_id: int | None

    def token_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The path that a continuation is conditional on.

        Raises:
            InvalidQuery: there is nothing to begin with, or an id is out of range.
        """
        return join(
            tokenizer,
            self.content,
            (),
            add_bos=self.add_bos,
            prefix_token_id=self.prefix_token_id,
        ).prefix

    def content_bytes(self, tokenizer: Tokenizer) -> bytes:
        """The text in UTF-8; for ids, the bytes that they stand for."""
        if isinstance(self.content, str):
            return self.content.encode()
        return path_bytes(tokenizer, self.content)


def parse_prompt(tokenizer: Tokenizer, info: ModelInfo, request: ContextRequest) -> Prompt:
    """The request's context, with messages rendered to token ids.

    Raises:
        InvalidQuery: the context is too long for the model, or there is no chat template for
            its messages, or the template refuses them.
    """
    content, add_bos = request.context, request.add_bos
    if isinstance(content, str):
        _check_length(tokenizer, info, content)
        return Prompt(content, add_bos, request.prefix_token_id)
    messages = [item for item in content if isinstance(item, Message)]
    if messages:
        # The template writes whatever the model expects first; a second one would be wrong.
        add_bos = bool(add_bos)
        return Prompt(_chat_ids(tokenizer, messages), add_bos, request.prefix_token_id)
    ids = tuple(item for item in content if isinstance(item, int))
    return Prompt(ids, add_bos, request.prefix_token_id)


def _check_length(tokenizer: Tokenizer, info: ModelInfo, text: str) -> None:
    """Refuse a hopeless context now, not after tokenizing it before every candidate."""
    tokenizer.check_text(text, "context")
    # A token stands for a byte at least.
    if len(text.encode()) > info.max_model_len:
        check_context(len(tokenizer.encode(text)), info, room=0)


def _chat_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[int, ...]:
    """The template's own control tokens as ids; those that a message spells stay text.

    A content that spells one is taken out, the template is rendered around a marker, and
    the content is put back as plain text.
    """
    hidden = _Hidden()
    for index, message in enumerate(messages):
        tokenizer.check_text(message.content, f"context.{index}.content")
    if sum(len(message.content) for message in messages) > MAX_CHAT_CHARS:
        raise InvalidQuery(f"messages hold more than {MAX_CHAT_CHARS} characters", "context")
    turns = [
        {"role": message.role, "content": hidden.hide(tokenizer, message.content)}
        for message in messages
    ]
    rendered = _render(tokenizer, turns)
    ids: list[int] = []
    for piece, is_text in hidden.pieces(rendered):
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


def _render(tokenizer: Tokenizer, turns: Sequence[dict[str, str]]) -> str:
    try:
        return tokenizer.render_chat(turns)
    except InvalidQuery as error:
        raise error.at("context") from error
