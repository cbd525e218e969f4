"""Server-sent events as OpenAI's clients read them: data without names, and a mark at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, TypeAdapter

from app.compat.openai.response import Completion
from app.http.json_response import dump_json_chunked, write_on_thread
from app.http.sse import EventStream, component, event_schema
from app.schemas.error import ErrorResponse

P = TypeVar("P", bound=BaseModel)

LARGE: Final = 4_096
"""Characters and entries of a piece beyond which it is written off the event loop."""

_WRITTEN: TypeAdapter[bytes] = TypeAdapter(bytes)

DONE: Final = b"data: [DONE]\n\n"


def stream_document(piece: dict[str, Any], order: str, example: str) -> dict[str, Any]:
    """A stream of pieces of such a schema for the OpenAPI document, in the order that is told."""
    return {
        "description": f"The answer; with ``stream``, as events without a name: {order}, and "
        "``[DONE]``. A failure on the way is a piece ``{error}``.",
        "content": {
            "text/event-stream": {
                "itemSchema": {
                    "anyOf": [
                        event_schema(piece),
                        event_schema(component(ErrorResponse), "error"),
                        {"type": "object", "properties": {"data": {"const": "[DONE]"}}},
                    ]
                },
                "example": f"data: {example}\n\ndata: [DONE]\n\n",
            }
        },
    }


def inline_schema(piece: type[BaseModel]) -> dict[str, Any]:
    """The schema of what no plain answer holds, so that the document has no component of it."""
    schema = TypeAdapter(piece).json_schema(mode="serialization")
    parts = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(one) for one in part]
        if not isinstance(part, dict):
            return part
        name = part.get("$ref", "").rsplit("/", 1)[-1]
        return resolved(parts[name]) if name else {key: resolved(one) for key, one in part.items()}

    return cast(dict[str, Any], resolved(schema))


EVENTS: Final = stream_document(
    component(Completion),
    "an echo first, then one piece a token, one with the ``finish_reason``, one with the ``usage`` "
    "where it is wanted",
    '{"id": "cmpl-0", "object": "text_completion", ...}',
)


class CompletionStream(EventStream[bytes]):
    """Pieces of an answer; see ``EventStream.open``."""

    @classmethod
    async def of(
        cls, pieces: AsyncGenerator[P, None], size: Callable[[P], int]
    ) -> EventStream[bytes]:
        """The response, once there is a first piece; ``pieces`` are closed with it.

        Args:
            pieces: at least one.
            size: characters of a piece's texts, and entries of its lists.

        Raises:
            ChainruleError: whatever ``pieces`` fails with before the first.
        """
        return await cls.open(_written(pieces, size), {}, _WRITTEN)

    async def _encoded(self, first: bytes) -> AsyncGenerator[bytes, None]:
        async for event in super()._encoded(first):
            yield event
        yield DONE

    def _event(self, event: bytes) -> bytes:
        return b"data: " + event + b"\n\n"


async def _written(
    pieces: AsyncGenerator[P, None], size: Callable[[P], int]
) -> AsyncGenerator[bytes, None]:
    """The pieces as JSON, which has no line breaks; the large ones are written off the loop."""
    async with aclosing(pieces):
        async for piece in pieces:
            if size(piece) > LARGE:
                yield await write_on_thread(dump_json_chunked, piece)
            else:
                yield dump_json_chunked(piece)


def completion_size(piece: Completion) -> int:
    """Characters of its texts, and entries of its lists."""
    size = sum(len(choice.text) for choice in piece.choices)
    for choice in piece.choices:
        if choice.logprobs is not None:
            size += sum(1 + len(row or ()) for row in choice.logprobs.top_logprobs)
    return size
