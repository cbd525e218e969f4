"""Server-sent events as OpenAI's clients read them: data without names, and a mark at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from fastapi.sse import format_sse_event

from app.compat.openai.reply import Completion
from app.event_stream import EventStream

DONE: Final = b"data: [DONE]\n\n"

EVENTS: Final[dict[str, Any]] = {
    "description": "The answer; with ``stream``, as events without a name: an echo first, then one "
    "piece a token, one with the ``finish_reason``, one with the ``usage`` where it is wanted, and "
    "``[DONE]``. A failure on the way is a piece ``{error}``.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'data: {"id": "cmpl-0", "object": "text_completion", ...}\n\n'
            "data: [DONE]\n\n",
        }
    },
}


class CompletionStream(EventStream[Completion]):
    """Pieces of a completion; see ``EventStream.begin``."""

    async def _encoded(self, first: Completion) -> AsyncGenerator[bytes, None]:
        async for event in super()._encoded(first):
            yield event
        yield DONE

    def _event(self, event: Completion) -> bytes:
        return format_sse_event(data_str=event.model_dump_json())
