"""A real server sends its traces over HTTP, and lives without whoever takes them."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app.main import create_app
from app.settings import Settings
from tests.app import stub_server
from tests.app.stub_server import TIMEOUT_S, ServerProcess

pytestmark = pytest.mark.process

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY = {"context": [1, 2], "candidates": [[3]]}


class Collector(ThreadingHTTPServer):
    """Takes what OTLP over HTTP brings.

    Attributes:
        requests: as they were sent.
        headers: of the last one.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: dict[str, str] = {}
        self.lock = Lock()

    @property
    def spans(self) -> dict[str, Span]:
        """By name."""
        return {
            span.name: span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        with self.server.lock:
            self.server.headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.requests.append(ExportTraceServiceRequest.FromString(content))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """On a port of its own."""
    with Collector() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def prepare(variables: dict[str, str], flush_s: float) -> None:
    """Before the process does anything."""
    os.environ.update(variables)
    from app.telemetry.traces import traces

    traces.FLUSH_S = flush_s  # type: ignore[misc]


@contextmanager
def traced(url: str, flush_s: float, **variables: str) -> Iterator[ServerProcess]:
    """A server that sends its traces there, and waits so long for them at its end."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **variables}
    process = ServerProcess("faulty", prepare=partial(prepare, environment, flush_s), traces=True)
    try:
        process.await_line("ready")
        yield process
    finally:
        process.kill()


BROUGHT = ("opentelemetry.sdk", "opentelemetry.exporter", "app.telemetry.traces")


def make_app(traces: bool) -> None:
    """Make it, and say by the exit status whether it brought what makes and sends spans."""
    create_app(Settings(traces=traces))
    os._exit(any(name.startswith(BROUGHT) for name in sys.modules))


@pytest.mark.parametrize("traces", [False, True])
def test_nothing_is_imported_while_they_are_off(traces: bool) -> None:
    """FastAPI itself brings the bare interface, which does nothing."""
    process = stub_server._FORKS.Process(target=make_app, args=(traces,))
    process.start()
    process.join(3 * TIMEOUT_S)
    assert process.exitcode == traces


def test_spans_arrive_before_the_process_ends(collector: Collector) -> None:
    """With the caller's trace, the standard variables' headers and names, and their links."""
    with traced(
        collector.url,
        TIMEOUT_S,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20secret",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_SERVICE_NAME="scores",
    ) as process:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        url = f"{process.url}/v1/score"
        assert httpx.post(url, json=BODY, headers=headers, timeout=TIMEOUT_S).status_code == 200
        process.signal(signal.SIGTERM)
        assert process.exit_code() == 0
    spans = collector.spans
    assert set(spans) == {
        *("POST /v1/score", "tokenize", "queue", "forward", "render", "serialize", "batch"),
    }
    request, forward, batch = spans["POST /v1/score"], spans["forward"], spans["batch"]
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert forward.parent_span_id == request.span_id
    assert [link.span_id for link in forward.links] == [batch.span_id]
    assert [link.span_id for link in batch.links] == [forward.span_id]
    resource = collector.requests[0].resource_spans[0].resource
    named = {pair.key: pair.value.string_value for pair in resource.attributes}
    assert named["service.name"] == "scores"
    assert collector.headers["authorization"] == "Bearer secret"
    assert not [line for line in process.log if line["level"] in ("warning", "error")]


def test_a_collector_that_is_gone_holds_up_nobody() -> None:
    """Requests are answered, and the process ends as it was asked to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with traced(url, 0.5, OTEL_BSP_SCHEDULE_DELAY="1") as process:
            assert [process.score(i, 1).status_code for i in range(1, 9)] == [200] * 8
            process.signal(signal.SIGTERM)
            assert process.exit_code() == 0


def test_a_collector_that_never_answers_holds_up_nobody() -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with traced(url, 0.5, OTEL_BSP_SCHEDULE_DELAY="1") as process:
            assert [process.score(i, 1).status_code for i in range(1, 9)] == [200] * 8
            with silent.accept()[0]:
                process.signal(signal.SIGTERM)
                assert process.exit_code() == 0
    assert "the last spans were not taken in time" in [line["message"] for line in process.log]
