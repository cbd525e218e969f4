"""Server-sent events as OpenAI's clients read them: data without names, and a mark at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from pydantic import TypeAdapter

from app.compat.openai.response import Completion
from app.http.json_response import dump_json_chunked, write_on_thread
from app.http.sse import EventStream, component, event_schema
from app.schemas.error import ErrorResponse

LARGE: Final = 4_096
"""Characters and entries of a piece beyond which it is written off the event loop."""

_WRITTEN: TypeAdapter[bytes] = TypeAdapter(bytes)

DONE: Final = b"data: [DONE]\n\n"

EVENTS: Final[dict[str, Any]] = {
    "description": "The answer; with ``stream``, as events without a name: an echo first, then one "
    "piece a token, one with the ``finish_reason``, one with the ``usage`` where it is wanted, and "
    "``[DONE]``. A failure on the way is a piece ``{error}``.",
    "content": {
        "text/event-stream": {
            "itemSchema": {
                "anyOf": [
                    event_schema(component(Completion)),
                    event_schema(component(ErrorResponse), "error"),
                    {"type": "object", "properties": {"data": {"const": "[DONE]"}}},
                ]
            },
            "example": 'data: {"id": "cmpl-0", "object": "text_completion", ...}\n\n'
            "data: [DONE]\n\n",
        }
    },
}


class CompletionStream(EventStream[bytes]):
    """Pieces of a completion; see ``EventStream.open``."""

    @classmethod
    async def of(cls, pieces: AsyncGenerator[Completion, None]) -> EventStream[bytes]:
        """The response, once there is a first piece; ``pieces`` are closed with it.

        Raises:
            ChainruleError: whatever ``pieces`` fails with before the first.
        """
        return await cls.open(_written(pieces), {}, _WRITTEN)

    async def _encoded(self, first: bytes) -> AsyncGenerator[bytes, None]:
        async for event in super()._encoded(first):
            yield event
        yield DONE

    def _event(self, event: bytes) -> bytes:
        return b"data: " + event + b"\n\n"


async def _written(pieces: AsyncGenerator[Completion, None]) -> AsyncGenerator[bytes, None]:
    """The pieces as JSON, which has no line breaks; the large ones are written off the loop."""
    async with aclosing(pieces):
        async for piece in pieces:
            if _size(piece) > LARGE:
                yield await write_on_thread(dump_json_chunked, piece)
            else:
                yield dump_json_chunked(piece)


def _size(piece: Completion) -> int:
    """Characters of its texts, and entries of its lists."""
    size = sum(len(choice.text) for choice in piece.choices)
    for choice in piece.choices:
        if choice.logprobs is not None:
            size += sum(1 + len(row or ()) for row in choice.logprobs.top_logprobs)
    return size
