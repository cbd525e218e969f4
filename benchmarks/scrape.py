"""`make bench`: how long GET /metrics takes while the server computes, and while it does not.

Clients that never pause keep more requests in line than one forward holds. Meanwhile both ports
that answer /metrics, the server's and the metrics' own, are asked in turns, each over one
connection.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.server_process import closed_loop, running_server
from benchmarks.table import Table
from benchmarks.timing import percentile
from benchmarks.workloads import independent

CLIENTS = 64
REQUESTS_A_RUN = 128
SATURATED = 32
"""Requests in line from which on a scrape counts: more than two forwards of 4,096 tokens hold."""

EVERY_S = 0.05
IDLE_SCRAPES = 200
MOST_S = 0.050
"""What a scrape may take."""

_QUEUED = re.compile(rb"^chainrule_queued_requests (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of /metrics."""

    seconds: float
    queued: float


class Scraper:
    """Asks one port, over a connection that it keeps."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.idle: list[Scrape] = []
        self.busy: list[Scrape] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def scrape(self) -> Scrape:
        """Ask once.

        Raises:
            SystemExit: the answer is not 200, or has no queue in it.
        """
        began = time.perf_counter()
        self._connection.request("GET", "/metrics")
        response = self._connection.getresponse()
        content = response.read()
        seconds = time.perf_counter() - began
        queued = _QUEUED.search(content)
        if response.status != 200 or queued is None:
            raise SystemExit(f"/metrics on {self.name} answered {response.status}")
        return Scrape(seconds, float(queued[1]))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alternate_until(scrapers: list[Scraper], ended: Callable[[], bool]) -> None:
    """Scrape in turns; kept apart is what was seen while too few requests waited."""
    while not ended():
        for scraper in scrapers:
            found = scraper.scrape()
            (scraper.busy if found.queued >= SATURATED else scraper.idle).append(found)
            time.sleep(EVERY_S)


def saturate(port: int, run: int) -> threading.Thread:
    """A thread that has clients send a run's requests; each has 272 tokens that no other has."""
    groups = independent(REQUESTS_A_RUN, seed=100 + run)
    bodies = [
        json.dumps({"context": list(group.context), "candidates": [list(group.candidates[0])]})
        for group in groups
    ]
    encoded = [body.encode() for body in bodies]
    thread = threading.Thread(target=closed_loop, args=(port, "/v1/score", encoded, CLIENTS))
    thread.start()
    return thread


def run(runs: int) -> None:
    """Print the table."""
    of_metrics = free_port()
    with running_server(CHAINRULE_METRICS_PORT=str(of_metrics)) as port:
        scrapers = [Scraper("the server's port", port), Scraper("a port of its own", of_metrics)]
        alternate_until(scrapers, lambda: len(scrapers[-1].idle) >= IDLE_SCRAPES)
        idle = {scraper.name: list(scraper.idle) for scraper in scrapers}
        for number in range(runs):
            clients = saturate(port, number)
            alternate_until(scrapers, lambda clients=clients: not clients.is_alive())  # type: ignore[misc]
    report(scrapers, idle)


def report(scrapers: list[Scraper], idle: dict[str, list[Scrape]]) -> None:
    """A row for each port and state.

    Raises:
        SystemExit: the server was never saturated.
    """
    table = Table(
        f"GET /metrics, every {1e3 * EVERY_S:.0f} ms, idle and with {CLIENTS} clients that never "
        f"pause (scrapes that saw at least {SATURATED} requests queued)",
        *("port", "server", "scrapes", "p50, ms", "p99, ms", "longest, ms", "of idle at p50"),
        f"within {1e3 * MOST_S:.0f} ms",
    )
    for scraper in scrapers:
        if not scraper.busy:
            raise SystemExit("the server was never saturated")
        sides = {"idle": idle[scraper.name], "saturated": scraper.busy}
        base = percentile([one.seconds for one in sides["idle"]], 0.5)
        for state, scrapes in sides.items():
            seconds = [one.seconds for one in scrapes]
            shares = [percentile(seconds, share) for share in (0.5, 0.99, 1.0)]
            good = sum(one <= MOST_S for one in seconds) / len(seconds)
            table.row(
                *(scraper.name, state, str(len(seconds))),
                *(f"{1e3 * share:.1f}" for share in shares),
                *(f"{shares[0] / base:.1f}x", f"{good:.1%}"),
            )
