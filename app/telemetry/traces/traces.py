"""Where traces begin, and where they go to."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from threading import Thread
from typing import Final, Self

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.version import __version__ as sdk_version

from app import version
from app.environment import otel_variable
from app.telemetry.traces.request_spans import RequestSpans
from app.telemetry.traces.span_maker import Attributes, SpanMaker

logger = logging.getLogger(__name__)

FLUSH_S: Final = 2.0
"""Seconds that the end of the process waits for a collector."""

_PROTOCOL: Final = "http/protobuf"


class Traces:
    """Begins the traces of requests. See ``open``.

    Args:
        processor: what spans go to.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        self._processor = processor
        self._maker = SpanMaker(processor, _resource())

    @classmethod
    def open(cls) -> Self:
        """Traces as the standard variables OTEL_* have them, sent over HTTP.

        Raises:
            ValueError: one of the variables asks for what there is not.
        """
        exporter = otel_variable("OTEL_TRACES_EXPORTER") or "otlp"
        if exporter != "otlp":
            raise ValueError(f"OTEL_TRACES_EXPORTER={exporter}: there is no exporter but otlp")
        for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            if (protocol := otel_variable(name) or _PROTOCOL) != _PROTOCOL:
                raise ValueError(f"{name}={protocol}: there is no protocol but {_PROTOCOL}")
        return cls(BatchSpanProcessor(OTLPSpanExporter()))

    def begin(
        self, method: str, headers: Sequence[tuple[bytes, bytes]], attributes: Attributes
    ) -> RequestSpans | None:
        """The spans of a request; None where it is not sampled.

        Args:
            method: one of a few names.
            headers: in which the context of whoever asks may stand.
            attributes: of the request's span.
        """
        context = propagate.extract(headers, getter=_HEADERS)
        span = self._maker.start_request(method, context, attributes)
        return RequestSpans(self._maker, span) if span.is_recording() else None

    async def close(self) -> None:
        """Send what is left, for ``FLUSH_S`` seconds at most."""
        sent, loop = asyncio.Event(), asyncio.get_running_loop()

        def send() -> None:
            self._processor.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(sent.set)

        # A daemon, so that a collector that hangs does not keep the process from ending.
        Thread(target=send, name="traces", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_S):
                await sent.wait()
        except TimeoutError:
            logger.warning("the last spans were not taken in time")


class _Headers(Getter[Sequence[tuple[bytes, bytes]]]):
    """Reads the headers of an ASGI scope. A context that is given twice is none."""

    def get(self, carrier: Sequence[tuple[bytes, bytes]], key: str) -> list[str] | None:
        wanted = key.lower().encode("latin-1")
        found = [value.decode("latin-1") for name, value in carrier if name == wanted]
        return None if not found or (key == "traceparent" and len(found) > 1) else found

    def keys(self, carrier: Sequence[tuple[bytes, bytes]]) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_HEADERS: Final = _Headers()


def _resource() -> Resource:
    """What sends the spans. OpenTelemetry's detectors of processes would add the command line."""
    own = {
        "service.name": "chainrule",
        "service.version": version(),
        "service.instance.id": str(uuid.uuid4()),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    return Resource(own).merge(OTELResourceDetector().detect())
