"""A real server process from its first moment to its exit status."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]


class Process:
    """A server process on a port of the system's choice; its log is read line by line."""

    def __init__(self, load: str, **settings: str) -> None:
        environment = {f"CHAINRULE_{name.upper()}": value for name, value in settings.items()}
        environment = {"CHAINRULE_PORT": "0", **environment}
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.app.stub_server", load],
            cwd=ROOT,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[dict[str, Any]] = []
        port = self.await_line("listening")["port"]
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"

    def await_line(self, message: str) -> dict[str, Any]:
        """Read the log up to the line with this message."""
        if self._popen.stderr is None:
            raise RuntimeError("standard error is not a pipe")
        for text in self._popen.stderr:
            line: dict[str, Any] = json.loads(text)
            self.log.append(line)
            if line["message"] == message:
                return line
        raise AssertionError(f"the process ended without {message!r}: {self.log}")

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the end; the rest of the log is read."""
        _, rest = self._popen.communicate(timeout=20)
        self.log += [json.loads(line) for line in rest.splitlines()]
        return self._popen.returncode

    def kill(self) -> None:
        """End it, whatever it does."""
        self._popen.kill()
        self._popen.communicate()


Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes, and ends those that are left."""
    started: list[Process] = []

    def start(load: str = "ok", **settings: str) -> Process:
        started.append(Process(load, **settings))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Threads for requests that wait."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield pool


def post(process: Process, seconds: float) -> httpx.Response:
    """Keep the engine busy for so long."""
    return httpx.post(f"{process.url}/work/x", json={"seconds": seconds}, timeout=20)


def status(process: Process, path: str) -> int:
    """What a GET answers."""
    return httpx.get(process.url + path).status_code


def until_status(process: Process, path: str, wanted: int) -> None:
    """Ask until the answer is the one that is wanted."""
    deadline = time.monotonic() + 10
    while status(process, path) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_busy(process: Process, requests: int) -> None:
    """Wait until the engine works on so many requests."""
    deadline = time.monotonic() + 10
    while httpx.get(f"{process.url}/health").json()["queue"]["queued_requests"] != requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sigterm_finishes_what_is_in_flight(
    start: Start, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    """Readiness ends first, early requests are answered, late ones refused, and the exit is 0."""
    process = start()
    process.await_line("ready")
    early = pool.submit(post, process, 1.0)
    until_busy(process, 1)
    process.signal(signal.SIGTERM)
    until_status(process, "/health/ready", 503)
    assert status(process, "/health/live") == 200
    late = post(process, 0.0)
    assert (late.status_code, late.headers["Connection"]) == (503, "close")
    assert not early.done()
    process.signal(signal.SIGTERM)
    assert early.result().status_code == 200
    assert process.exit_code() == 0
    assert [line["message"] for line in process.log][-1] == "stopped"
    assert not [line for line in process.log if "traceback" in line]


def test_at_the_drain_timeout_the_exit_is_on_time(
    start: Start, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    """What has not finished by then gets 503, a slow body too, and the exit is still 0."""
    process = start(drain_timeout_s="0.5")
    process.await_line("ready")
    running = pool.submit(post, process, 60.0)
    until_busy(process, 1)
    with socket.create_connection(process.address) as slow:
        slow.sendall(
            b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n{"
        )
        time.sleep(0.1)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        assert running.result().status_code == 503
        assert slow.recv(65_536).startswith(b"HTTP/1.1 503 ")
        assert process.exit_code() == 0
    assert time.monotonic() - began < 4


def test_a_second_interrupt_does_not_wait(
    start: Start, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    """Ctrl+C drains as SIGTERM does; pressed twice it answers the rest with 503 at once."""
    process = start()
    process.await_line("ready")
    running = pool.submit(post, process, 60.0)
    until_busy(process, 1)
    process.signal(signal.SIGINT)
    process.await_line("draining")
    process.signal(signal.SIGINT)
    assert running.result().status_code == 503
    assert process.exit_code() == 0


def test_sigterm_while_loading_exits_cleanly(start: Start) -> None:
    """The process is live and not ready while it loads, and can be stopped at once."""
    process = start("slow")
    assert status(process, "/health/live") == 200
    assert status(process, "/health/ready") == 503
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0


@pytest.mark.parametrize(
    ("load", "reason"),
    [("missing", "model.safetensors is truncated"), ("broken", "KeyError: 'hidden_size'")],
)
def test_a_failed_load_ends_the_process(start: Start, load: str, reason: str) -> None:
    """Never ready, exit non-zero, and the reason is one line of the log."""
    process = start(load)
    assert process.exit_code() == 1
    (line,) = [line for line in process.log if line["level"] == "critical"]
    assert line["message"] == f"cannot serve the model: {reason}"
    assert "ready" not in [line["message"] for line in process.log]


def test_a_dead_engine_ends_the_process(start: Start) -> None:
    """When the model thread dies the exit is non-zero and soon, so something can restart it."""
    process = start()
    process.await_line("ready")
    began = time.monotonic()
    httpx.post(f"{process.url}/die")
    assert process.exit_code() == 1
    assert time.monotonic() - began < 5
    assert "the engine died: RuntimeError: the model thread fell over" in [
        line["message"] for line in process.log
    ]


def test_a_client_that_leaves_frees_its_place(start: Start) -> None:
    """A closed connection takes its request out of the engine."""
    process = start()
    process.await_line("ready")
    body = b'{"seconds": 60}'
    head = f"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(process.address) as client:
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        until_busy(process, 1)
    until_busy(process, 0)
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0
    (line,) = [line for line in process.log if line.get("status") == 499]
    assert line["route"] == "/work/{name}"


@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_the_body_limit_holds_on_the_wire(start: Start, framing: str) -> None:
    """One byte too many is 413 for a real client, and the server goes on."""
    process = start(max_body_bytes="1000")
    process.await_line("ready")

    def send(length: int) -> int:
        body = b"{}".ljust(length)
        parts = iter([body[:500], body[500:]])
        return httpx.post(
            f"{process.url}/work/x",
            content=body if framing == "declared" else parts,
            headers={"Content-Type": "application/json"},
        ).status_code

    assert [send(1000), send(1001), send(1_000_000), send(1000)] == [200, 413, 413, 200]


def test_abuse_on_the_wire_leaves_the_server_alive(start: Start) -> None:
    """Endless headers, broken requests and smuggling attempts are 4xx and end the connection."""
    process = start()
    process.await_line("ready")
    attempts = [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"a" * (16 << 20),
        b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(1 << 18)),
        b"BREW /\r\n\r\n",
        b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /work/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ]
    for attempt in attempts:
        with socket.create_connection(process.address, timeout=10) as connection:
            try:
                connection.sendall(attempt)
            except (BrokenPipeError, ConnectionResetError):
                continue  # refused before all of it was said
            try:
                answer = connection.recv(65_536)
            except ConnectionResetError:
                continue
            assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert post(process, 0.0).status_code == 200


def test_the_server_does_not_say_what_it_is_made_of(start: Start) -> None:
    """No header names the server software."""
    process = start()
    assert "server" not in httpx.get(f"{process.url}/health").headers
