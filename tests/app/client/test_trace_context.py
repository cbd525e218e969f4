"""The clients tell a server of the span that is active, and of nothing else."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from app.client import AsyncClient, Client, Retries
from tests.app.in_process import URL

NAMES = ("traceparent", "tracestate", "baggage")
CONTEXT = SpanContext(
    0x0AF7651916CD43DD8448EB211C80319C,
    0xB7AD6B7169203331,
    is_remote=False,
    trace_flags=TraceFlags(TraceFlags.SAMPLED),
    trace_state=TraceState([("vendor", "value")]),
)
EXPECTED = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=value",
}
ASKED = {"context": "it is", "candidates": [" yes"]}
TWICE = Retries(attempts=2, first_wait_s=0.0, longest_wait_s=0.0)

BARE = """
import sys
import app.client
from app.client.trace_context import trace_headers

assert trace_headers() == {}
sys.exit(any(name.startswith("opentelemetry") for name in sys.modules))
"""


class Server(httpx.MockTransport):
    """Refuses everything, and remembers what was told of traces."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        super().__init__(self._refuse)

    def _refuse(self, request: httpx.Request) -> httpx.Response:
        headers = request.headers
        self.told.append({name: headers[name] for name in NAMES if name in headers})
        return httpx.Response(503, json={"error": {"message": "no", "type": "x", "code": "y"}})


def test_every_attempt_names_the_active_span() -> None:
    """Its trace, itself, and the state."""
    server = Server()
    with (
        Client(URL, transport=server, retries=TWICE) as client,
        trace.use_span(NonRecordingSpan(CONTEXT)),
        pytest.raises(Exception, match="no"),
    ):
        client.score(**ASKED)
    assert server.told == [EXPECTED, EXPECTED]


@pytest.mark.anyio
async def test_every_attempt_names_the_active_span_on_a_loop() -> None:
    """As without one."""
    server = Server()
    async with AsyncClient(URL, transport=server, retries=TWICE) as client:
        with trace.use_span(NonRecordingSpan(CONTEXT)), pytest.raises(Exception, match="no"):
            await client.score(**ASKED)
    assert server.told == [EXPECTED, EXPECTED]


def test_threads_of_a_client_know_the_span() -> None:
    """Also where several run at once."""
    server = Server()
    with (
        Client(URL, transport=server, retries=Retries(attempts=1)) as client,
        trace.use_span(NonRecordingSpan(CONTEXT)),
    ):
        assert len(list(client.score_many([ASKED] * 5, concurrency=3, return_errors=True))) == 5
    assert server.told == [EXPECTED] * 5


def test_without_a_span_nothing_is_told() -> None:
    """Baggage alone is no trace."""
    server, token = Server(), attach(baggage.set_baggage("key", "value"))
    try:
        with (
            Client(URL, transport=server, retries=Retries(attempts=1)) as client,
            pytest.raises(Exception, match="no"),
        ):
            client.score(**ASKED)
    finally:
        detach(token)
    assert server.told == [{}]


def test_where_nobody_uses_opentelemetry_it_is_not_imported() -> None:
    """The client stands for itself."""
    assert subprocess.run([sys.executable, "-c", BARE]).returncode == 0
