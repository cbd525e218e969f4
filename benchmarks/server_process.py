"""A real server in a process of its own, and clients in several more."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

READY_TIMEOUT_S = 120
CLIENT_PROCESSES = 4

DEFAULTS = {
    "CHAINRULE_DEVICE": "cpu",
    "CHAINRULE_DTYPE": "float32",
    "CHAINRULE_LOG_LEVEL": "warning",
}
"""Settings of the server unless a benchmark names others."""

Body = bytes


@contextmanager
def running_server(**environment: str) -> Iterator[int]:
    """`chainrule serve` on a free port; yields the port, and ends it with SIGTERM."""
    with running_process(**environment) as (port, _):
        yield port


@contextmanager
def running_process(**environment: str) -> Iterator[tuple[int, int]]:
    """The same; yields the port and the process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = DEFAULTS | {"CHAINRULE_PORT": str(port), **environment}
    process = subprocess.Popen([sys.executable, "-m", "app", "serve"], env=os.environ | settings)
    try:
        _wait_ready(process, port)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if request(port, "GET", "/health/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server did not become ready")


def request(port: int, method: str, path: str, body: Body | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def metrics(port: int) -> dict[str, float]:
    """The server's counters and gauges that have no labels."""
    lines = request(port, "GET", "/metrics")[1].decode().splitlines()
    pairs = (line.split(" ") for line in lines if line.startswith("chainrule_") and "{" not in line)
    return {name: float(value) for name, value in pairs}


def closed_loop(port: int, path: str, bodies: Sequence[Body], clients: int) -> float:
    """Seconds until ``clients`` keep-alive clients have had every body answered with 200."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(CLIENT_PROCESSES + 1)
    failed = context.Value("i", 0)
    shares = [bodies[i::CLIENT_PROCESSES] for i in range(CLIENT_PROCESSES)]
    each = clients // CLIENT_PROCESSES
    workers = [
        context.Process(target=_clients, args=(port, path, share, each, start, failed))
        for share in shares
    ]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    if failed.value:
        raise SystemExit(f"{failed.value} of {len(bodies)} requests failed")
    return seconds


def _clients(  # type: ignore[no-untyped-def]
    port: int, path: str, bodies: Sequence[Body], count: int, start, failed
) -> None:
    """One process: ``count`` threads, each with one connection, sharing the bodies."""
    todo = iter(bodies)
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        while True:
            with lock:
                body = next(todo, None)
            if body is None:
                return
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 200 or "error" in answer["results"][0]:
                with failed.get_lock():
                    failed.value += 1

    threads = [threading.Thread(target=client) for _ in range(count)]
    start.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
