"""An answer that is sent while it grows, as server-sent events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, Generic, TypeVar

from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel, TypeAdapter
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.errors.table import error_object, error_row
from app.schemas.error import ErrorResponse
from app.telemetry.request_facts import Facts, facts_of
from model_runtime import ChainruleError

logger = logging.getLogger(__name__)

T = TypeVar("T")

STALLED_S: Final = 60.0
"""Seconds without a byte taken, after which a reader that keeps its connection open is cut off."""

HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Against caches and proxies that would collect an answer before they pass it on."""


def event_schema(data: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """One event for the OpenAPI document: its name, if it has one, and its data as JSON."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": data,
            }
        },
        "required": ["data"],
    }
    if name is not None:
        schema["properties"]["event"] = {"type": "string", "const": name}
        schema["required"].append("event")
    return schema


def component(model: type[BaseModel]) -> dict[str, Any]:
    """Where the document has a model that some route answers with."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


class EventStream(EventSourceResponse, Generic[T]):
    """Sends events until there are no more, or the reader is gone. See ``open``."""

    def __init__(
        self, first: T, rest: AsyncGenerator[T, None], names: dict[type, str], kind: TypeAdapter[T]
    ) -> None:
        self._rest = rest
        self._names = names
        self._kind = kind
        self._facts: Facts = {}
        self._lines = self._encoded(first)
        super().__init__(self._lines, headers=HEADERS)

    @classmethod
    async def open(
        cls, events: AsyncGenerator[T, None], names: dict[type, str], kind: TypeAdapter[T]
    ) -> EventStream[T]:
        """Wait for the first event, so that what goes wrong before it has its own status.

        Args:
            events: at least one; closed when the response ends, however it ends.
            names: of the events, by type.
            kind: how to write them as JSON.

        Raises:
            ChainruleError: whatever ``events`` fails with before the first.
        """
        return cls(await anext(events), events, names, kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette would watch for the disconnect in a task of its own; CancelOnDisconnect
        # does already, and cancels this one.
        self._facts = facts_of(scope)
        async with aclosing(self._rest), aclosing(self._lines):
            await self.stream_response(_with_send_timeout(send))

    async def _encoded(self, first: T) -> AsyncGenerator[bytes, None]:
        yield self._event(first)
        try:
            async for event in self._rest:
                yield self._event(event)
        except ChainruleError as exc:
            row = error_row(exc)
            self._facts["error"] = row.code
            if row.status >= 500:
                logger.warning("stream failed", extra={"error": f"{type(exc).__name__}: {exc}"})
            failure = ErrorResponse(error=error_object(exc)).model_dump_json()
            yield format_sse_event(data_str=failure, event="error")

    def _event(self, event: T) -> bytes:
        data = self._kind.dump_json(event).decode()
        return format_sse_event(data_str=data, event=self._names[type(event)])


def _with_send_timeout(send: Send) -> Send:
    async def send_in_time(message: Message) -> None:
        try:
            async with asyncio.timeout(STALLED_S):
                await send(message)
        except TimeoutError:
            raise ClientDisconnect from None

    return send_in_time
