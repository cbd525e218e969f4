"""`make bench`: small requests over HTTP without traces, with all of them, and with a tenth.

The collector is a process of its own that takes what it is sent and keeps nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

from benchmarks.server_process import closed_loop, running_server
from benchmarks.table import Table
from benchmarks.timing import median
from benchmarks.workloads import ids

CLIENTS, REQUESTS = 16, 2_000
CONTEXT_TOKENS, CANDIDATE_TOKENS = 8, 2

SIDES: dict[str, dict[str, str]] = {
    "no traces": {},
    "all traced": {"CHAINRULE_TRACES": "true", "OTEL_TRACES_SAMPLER": "always_on"},
    "a tenth traced": {
        "CHAINRULE_TRACES": "true",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    },
}


class _Taker(BaseHTTPRequestHandler):
    """Takes spans, counts their bytes, and keeps none."""

    protocol_version = "HTTP/1.1"
    taken = 0

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        _Taker.taken += len(self.rfile.read(size))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _collect(port: Connection) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Taker) as server:
        port.send(server.server_port)
        while not port.poll():
            server.timeout = 0.1
            server.handle_request()
        port.send(_Taker.taken)


@contextmanager
def collector() -> Iterator[str]:
    """Its address. Ends the benchmark where nothing was sent there."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_collect, args=(theirs,))
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
        ours.send("end")
        taken = ours.recv()
    finally:
        process.terminate()
        process.join()
    if not taken:
        raise SystemExit("no spans were sent")


def bodies(seed: int) -> list[bytes]:
    """Small requests, all different."""
    rng = random.Random(seed)
    return [
        json.dumps(
            {"context": ids(rng, CONTEXT_TOKENS), "candidates": [ids(rng, CANDIDATE_TOKENS)]}
        ).encode()
        for _ in range(REQUESTS)
    ]


def run(runs: int) -> None:
    """Alternate the sides ``runs`` times, behind one run of each that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    with collector() as url, ExitStack() as servers:
        ports = {
            name: servers.enter_context(
                running_server(**environment, OTEL_EXPORTER_OTLP_ENDPOINT=url)
            )
            for name, environment in SIDES.items()
        }
        for number in range(runs + 1):
            for name, port in ports.items():
                seconds = closed_loop(port, "/v1/score", bodies(number), CLIENTS)
                if number:
                    rates[name].append(REQUESTS / seconds)
    table = Table(
        f"{CLIENTS} HTTP clients, {REQUESTS} requests a run, each of {CONTEXT_TOKENS} tokens and "
        f"one candidate of {CANDIDATE_TOKENS}; medians of {runs} alternating runs",
        *("server", "requests a second", "of that without traces"),
    )
    alone = median(rates["no traces"])
    for name, found in rates.items():
        table.row(name, f"{median(found):.0f}", f"{median(found) / alone:.0%}")
