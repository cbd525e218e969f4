"""The app in process with traces that stay in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from app import main
from app.settings import Settings
from app.telemetry.traces.traces import Traces
from model_runtime import Engine
from tests.app.conftest import client_of, shell_app
from tests.app.faulty_engine import HELD, faulty_engine
from tests.app.http.middleware.test_middleware import until


class Recorded:
    """What was sent."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.traces = Traces(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """In the order of their ends."""
        return self._exporter.get_finished_spans()

    @property
    def content(self) -> bytes:
        """As they go over the wire."""
        return bytes(encode_spans(self.spans).SerializeToString())

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of a name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only one of a name."""
        (span,) = self.named(name)
        return span

    def below(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """The children of a span."""
        return [span for span in self.spans if span.parent == parent.context]

    def linked(self, span: ReadableSpan) -> list[ReadableSpan]:
        """The spans that a span has links to, each of which was sent."""
        return [self._at(link.context) for link in span.links]

    def _at(self, context: SpanContext) -> ReadableSpan:
        wanted = (context.trace_id, context.span_id)
        (span,) = [one for one in self.spans if ids(one) == wanted]
        return span

    def clear(self) -> None:
        """Forget all of them."""
        self._exporter.clear()


def ids(span: ReadableSpan) -> tuple[int, int]:
    """Of the trace, and of the span."""
    return span.context.trace_id, span.context.span_id


def failure(span: ReadableSpan) -> object:
    """What a span failed with; None where it did not."""
    found = (span.attributes or {}).get("error.type")
    assert span.status.is_ok is (found is None)
    assert span.status.description is None
    return found


@dataclass
class Held:
    """An engine whose forwards are made of arithmetic, behind one that waits."""

    app: FastAPI
    engine: Engine
    client: httpx.AsyncClient
    release: threading.Event

    async def score(self, *tokens: int, **fields: Any) -> httpx.Response:
        """Ask for a path."""
        body = {"context": tokens[:-1], "candidates": [tokens[-1:]], **fields}
        return await self.client.post("/v1/score", json=body)

    async def hold(self) -> asyncio.Task[httpx.Response]:
        """Begin a forward that waits for ``release``."""
        task = asyncio.create_task(self.score(HELD, 1))
        await until(lambda: self.engine.stats().running_requests == 1)
        return task

    async def queue(self, *tokens: int, **fields: Any) -> asyncio.Task[httpx.Response]:
        """Ask for a path, and wait until it stands in the queue."""
        admitted = self.engine._scheduler._waiting
        before = len(admitted)
        task = asyncio.create_task(self.score(*tokens, **fields))
        await until(lambda: len(admitted) == before + 1)
        return task

    async def join(self, *tokens: int) -> asyncio.Task[httpx.Response]:
        """Ask what is being asked, and wait until it waits for that."""
        service = self.app.state.service
        calls = service._scores._inflight._by_digest
        task = asyncio.create_task(self.score(*tokens))
        await until(lambda: any(call.waiting == 2 for call in calls.values()))
        return task


@asynccontextmanager
async def held_engine(**settings: Any) -> AsyncIterator[Held]:
    """A traced app around it."""
    release = threading.Event()
    # On a thread, as a server loads: it reads how much memory there is.
    config = Settings(**settings).engine_config()
    engine = await asyncio.to_thread(faulty_engine, config, release)
    try:
        app = shell_app(engine, traces=True, **settings)
        async with client_of(app) as client:
            yield Held(app, engine, client, release)
    finally:
        release.set()


def record(patch: pytest.MonkeyPatch) -> Recorded:
    """Let every app that is made with traces send them here."""
    recorded = Recorded()
    patch.setattr(main, "open_traces", lambda: recorded.traces)
    return recorded
