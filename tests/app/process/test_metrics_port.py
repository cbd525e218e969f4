"""Metrics on a port of their own: open to scrapers without a key, closed to everything else."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from app.server import SCRAPERS
from tests.app.stub_server import ServerProcess

pytestmark = pytest.mark.process

KEY = {"Authorization": "Bearer key"}


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """A server with a key."""
    process = ServerProcess(metrics_port=0, api_keys="key")
    yield process
    process.kill()


@pytest.fixture
def metrics(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of its other port."""
    port = server.await_line("listening for metrics")["port"]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


def test_the_port_answers_for_the_metrics_alone(
    server: ServerProcess, metrics: httpx.Client
) -> None:
    """GET and HEAD of /metrics, without a key; the other port wants one all the same."""
    server.await_line("ready")
    text = metrics.get("/metrics").text
    assert "chainrule_ready 1.0" in text
    assert metrics.head("/metrics").content == b""
    assert metrics.get("/health").status_code == 404
    assert metrics.get("/v1/models").status_code == 404
    assert metrics.post("/v1/score", json={}, headers=KEY).status_code == 404
    refused = metrics.post("/metrics", content=b"x" * 100)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert httpx.get(f"{server.url}/metrics").status_code == 401
    assert httpx.get(f"{server.url}/metrics", headers=KEY).status_code == 200


def test_it_is_scraped_until_the_end(server: ServerProcess, metrics: httpx.Client) -> None:
    """While requests are drained the metrics are told, and the process ends with the last one."""
    server.await_line("ready")
    work = threading.Thread(
        target=httpx.post,
        args=(f"{server.url}/work/x",),
        kwargs={"json": {"seconds": 1.0}, "headers": KEY, "timeout": 20},
    )
    work.start()
    while "chainrule_queued_requests 1.0" not in metrics.get("/metrics").text:
        pass
    server.signal(signal.SIGTERM)
    server.await_line("draining")
    assert "chainrule_queued_requests 1.0" in metrics.get("/metrics").text
    work.join()
    assert server.exit_code() == 0


def test_connections_to_it_are_bounded(server: ServerProcess, metrics: httpx.Client) -> None:
    """Idle ones give way to a scraper, and end by themselves."""
    address = (metrics.base_url.host, metrics.base_url.port)
    idle = [socket.create_connection(address) for _ in range(2 * SCRAPERS)]
    assert metrics.get("/metrics").status_code == 200
    closed = 0
    for connection in idle:
        connection.settimeout(0.05)
        with suppress(TimeoutError):
            closed += connection.recv(1) == b""
        connection.close()
    assert closed >= SCRAPERS


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    """Before a model is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "app", "serve", "--port", "0", "--metrics-port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr
