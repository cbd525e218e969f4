"""The context of a request, from its wire form to what the tokenizer's join takes."""

from __future__ import annotations

from dataclasses import dataclass

from app.requests.chat import render_chat
from app.requests.limits import check_context
from app.requests.token_details import path_bytes
from app.schemas.request import ContextRequest, Message
from model_runtime import ModelInfo, Tokenizer, join


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
            its messages, or the template refuses them, or cannot leave the last one open.
    """
    content, add_bos = request.context, request.add_bos
    if isinstance(content, str):
        _check_length(tokenizer, info, content)
        return Prompt(content, add_bos, request.prefix_token_id)
    messages = [item for item in content if isinstance(item, Message)]
    if messages:
        # The template writes whatever the model expects first; a second one would be wrong.
        add_bos = bool(add_bos)
        chat = render_chat(tokenizer, messages, "context")
        return Prompt(chat.ids, add_bos, request.prefix_token_id)
    ids = tuple(item for item in content if isinstance(item, int))
    return Prompt(ids, add_bos, request.prefix_token_id)


def _check_length(tokenizer: Tokenizer, info: ModelInfo, text: str) -> None:
    """Refuse a hopeless context now, not after tokenizing it before every candidate."""
    tokenizer.check_text(text, "context")
    # A token stands for a byte at least.
    if len(text.encode()) > info.max_model_len:
        check_context(len(tokenizer.encode(text)), info, room=0)
