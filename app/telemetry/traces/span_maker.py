"""Spans out of what was noted: those below a request, and those of forwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import local
from typing import Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from app import version
from model_runtime import ForwardRun

MAX_LINKS: Final = 128
"""Of a batch. What else it held leads to it all the same."""

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)

Attributes = Mapping[str, str | int]


class SpanIds(RandomIdGenerator):
    """Random ids; the next span of this thread may be given those that others refer to already."""

    def __init__(self) -> None:
        self._given = local()

    def give(self, span_id: int | None, trace_id: int | None = None) -> None:
        """The ids of the next span; None for random ones."""
        self._given.span_id, self._given.trace_id = span_id, trace_id

    def generate_span_id(self) -> int:
        """The one that was given, else a random one."""
        given: int | None = getattr(self._given, "span_id", None)
        self._given.span_id = None
        return super().generate_span_id() if given is None else given

    def generate_trace_id(self) -> int:
        """The one that was given, else a random one."""
        given: int | None = getattr(self._given, "trace_id", None)
        self._given.trace_id = None
        return super().generate_trace_id() if given is None else given


class Batch:
    """A forward, and what it held.

    Attributes:
        parts: the trace and the span of each part, as far as they are told.
        unsent: empty once somebody makes the span; to pop from a list is atomic.
    """

    __slots__ = ("parts", "run", "span_id", "trace_id", "unsent")

    def __init__(self, run: ForwardRun, trace_id: int, span_id: int) -> None:
        self.run = run
        self.trace_id = trace_id
        self.span_id = span_id
        self.parts: list[tuple[int, int]] = []
        self.unsent = [True]

    def claim(self) -> bool:
        """Whether the caller, and nobody else, has to make the span: all parts are known."""
        if len(self.parts) < self.run.observed:
            return False
        try:
            return self.unsent.pop()
        except IndexError:
            return False


class Child(NamedTuple):
    """A span below that of a request, as it is noted."""

    name: str
    began_ns: int
    ended_ns: int
    failure: str | None = None
    shared: Sequence[SpanContext] = ()
    attributes: Attributes | None = None
    batch: Batch | None = None
    span_id: int | None = None


class SpanMaker:
    """Makes spans.

    Args:
        processor: what they go to.
        resource: what sends them.
    """

    def __init__(self, processor: SpanProcessor, resource: Resource) -> None:
        self._ids = SpanIds()
        self._batch: Batch | None = None
        requests = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        # Whether a batch is kept is decided by the requests that it held.
        batches = TracerProvider(ALWAYS_ON, resource, False, id_generator=self._ids)
        for provider in (requests, batches):
            provider.add_span_processor(processor)
        self._requests = requests.get_tracer("chainrule", version())
        self._batches = batches.get_tracer("chainrule", version())

    def start_request(self, name: str, context: Context, attributes: Attributes) -> Span:
        """The span of a request that begins, sampled or not."""
        self._ids.give(None)
        return self._requests.start_span(name, context, SpanKind.SERVER, attributes)

    def part_of(self, run: ForwardRun, trace_id: int, span_id: int | None) -> tuple[Batch, int]:
        """The forward, which this span is a part of, and the span's id. On the model thread only.

        Args:
            run: as the engine tells it.
            trace_id: of the request.
            span_id: of what stands for the part; None for a span that is to be made.
        """
        batch = self._batch
        if batch is None or batch.run is not run:
            ids = self._ids
            batch = Batch(run, ids.generate_trace_id(), ids.generate_span_id())
            self._batch = batch
        own = self._ids.generate_span_id() if span_id is None else span_id
        batch.parts.append((trace_id, own))
        return batch, own

    def send(self, context: Context, child: Child) -> None:
        """Make the span of a part of a request, and that of its forward if it is the last to."""
        batch, shared = child.batch, child.shared
        if batch is not None:
            shared = (span_context(batch.trace_id, batch.span_id),)
        self._ids.give(child.span_id)
        span = self._requests.start_span(
            child.name,
            context,
            attributes=child.attributes,
            links=[Link(one) for one in shared],
            start_time=child.began_ns,
        )
        end_span(span, child.ended_ns, child.failure)
        if batch is not None:
            self.send_batch(batch)

    def send_batch(self, batch: Batch) -> None:
        """Make the span of a forward, if all its parts are known and nobody else has made it."""
        if not batch.claim():
            return
        run = batch.run
        self._ids.give(batch.span_id, batch.trace_id)
        span = self._batches.start_span(
            "batch",
            Context(),
            attributes=batch_attributes(run),
            links=[Link(span_context(*part)) for part in batch.parts[:MAX_LINKS]],
            start_time=run.began_ns,
        )
        end_span(span, run.ended_ns, run.error)


def span_context(trace_id: int, span_id: int) -> SpanContext:
    """What others link to."""
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED)


def batch_attributes(run: ForwardRun) -> dict[str, str | int]:
    """Those that tell of a forward, of its span and of whoever was held by it."""
    return {"chainrule.batch.tokens": run.tokens, "chainrule.batch.requests": run.requests}


def end_span(span: Span, ended_ns: int, failure: str | None) -> None:
    """The end of a span, which may be a failure of this name."""
    if failure is not None:
        span.set_attribute("error.type", failure)
        span.set_status(Status(StatusCode.ERROR))
    span.end(ended_ns)
