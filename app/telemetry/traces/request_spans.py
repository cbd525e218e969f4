"""What is noted of one request until its spans are made."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from app.telemetry.traces.span_maker import (
    Attributes,
    Child,
    SpanMaker,
    batch_attributes,
    end_span,
)
from model_runtime import ForwardObserver, ForwardRun

logger = logging.getLogger(__name__)

MAX_SPANS: Final = 64
"""Below one request; the others are counted. About three milliseconds of the event loop."""


class RequestSpans:
    """The spans of one request; a ``RequestTrace``.

    Attributes:
        context: what others may link to.
    """

    def __init__(self, maker: SpanMaker, span: trace.Span) -> None:
        self.context = span.get_span_context()
        self._maker = maker
        self._span = span
        self._parent = trace.set_span_in_context(span, Context())
        self._unsent: deque[Child] = deque()
        self._unheld: set[_Call] = set()
        self._ended = False
        # Two threads count, and may lose one of each other: it is a bound, not a record.
        self._noted = self._forwards = 0

    @property
    def trace_id(self) -> str:
        """As W3C headers spell it."""
        return trace.format_trace_id(self.context.trace_id)

    def stage(self, name: str, shared: Iterable[ForwardObserver | None] = ()) -> _Stage:
        """See ``RequestTrace``."""
        links = [one.request.context for one in shared if isinstance(one, _Call)]
        return _Stage(self, name, links)

    def observe_call(self) -> _Call:
        """See ``RequestTrace``."""
        return _Call(self)

    def end(self, name: str, attributes: Attributes, failure: str | None) -> None:
        """Nothing more happens; make the spans.

        Args:
            name: of the request's span, now that its route is known.
            attributes: of the request's span.
            failure: in one of a few names; None where it has not failed.
        """
        now_ns = time.time_ns()
        if failure is not None:
            for call in list(self._unheld):
                self.note(Child("queue", call.asked_ns, now_ns, failure))
        # From here on whoever notes something makes its span as well.
        self._ended = True
        self._send()
        counts = {"chainrule.forwards": self._forwards}
        if self._noted > MAX_SPANS:
            counts["chainrule.spans_left_out"] = self._noted - MAX_SPANS
        self._span.update_name(name)
        self._span.set_attributes({**attributes, **counts})
        end_span(self._span, now_ns, failure)

    def note(self, child: Child) -> None:
        """Keep a part of the request, or count it where there are too many."""
        self._noted += 1
        if self._noted > MAX_SPANS:
            if child.batch is not None:
                self._maker.send_batch(child.batch)
            return
        self._unsent.append(child)
        if self._ended:
            self._send()

    def wait(self, call: _Call) -> None:
        """A call waits for its first forward."""
        self._unheld.add(call)

    def note_forward(
        self, call: _Call, run: ForwardRun, tokens: int, queue_s: float | None
    ) -> None:
        """A forward held a part of a call. On the model thread only."""
        self._unheld.discard(call)
        self._forwards += 1
        if queue_s is not None:
            waited_ns = max(0, round(queue_s * 1e9))
            self.note(Child("queue", run.began_ns - waited_ns, run.began_ns))
        trace_id = self.context.trace_id
        if self._noted >= MAX_SPANS:
            self._noted += 1
            batch, _ = self._maker.part_of(run, trace_id, self.context.span_id)
            self._maker.send_batch(batch)
            return
        batch, span_id = self._maker.part_of(run, trace_id, None)
        own = {"chainrule.tokens": tokens, **batch_attributes(run)}
        self.note(
            Child(
                *("forward", run.began_ns, run.ended_ns, run.error),
                attributes=own,
                batch=batch,
                span_id=span_id,
            )
        )

    def _send(self) -> None:
        # Both threads may be here: each span is taken by one of them.
        while True:
            try:
                child = self._unsent.popleft()
            except IndexError:
                return
            self._maker.send(self._parent, child)


class _Stage:
    """A block that is a part of a request."""

    def __init__(self, request: RequestSpans, name: str, shared: Sequence[SpanContext]) -> None:
        self._request = request
        self._name = name
        self._shared = shared
        self._began_ns = 0

    def __enter__(self) -> None:
        self._began_ns = time.time_ns()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        failure = None if kind is None else kind.__name__
        self._request.note(Child(self._name, self._began_ns, time.time_ns(), failure, self._shared))


class _Call:
    """Observes one call of the engine; a ``CallObserver``."""

    def __init__(self, request: RequestSpans) -> None:
        self.request = request
        self.asked_ns = 0

    def asked(self) -> None:
        """See ``CallObserver``."""
        self.asked_ns = time.time_ns()
        self.request.wait(self)

    def forward_ended(self, forward: ForwardRun, tokens: int, queue_s: float | None) -> None:
        """See ``ForwardObserver``."""
        try:
            self.request.note_forward(self, forward, tokens, queue_s)
        except Exception:  # the model thread ends by what it does not expect
            logger.exception("a forward is missing in a trace")
