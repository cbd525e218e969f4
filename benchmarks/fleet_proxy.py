"""`python -m benchmarks.fleet_proxy`: HAProxy in front of servers, against the servers themselves.

The same server is asked directly and through deploy/haproxy/haproxy.cfg, in turns. Then two servers
are asked through it for many contexts several times each, with and without consistent hashing,
against one server alone. HAProxy must be installed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from app.client import Client
from benchmarks.server_process import closed_loop, running_server
from benchmarks.table import Table
from benchmarks.timing import median, seconds_of
from benchmarks.workloads import ranking
from tests.deploy.haproxy.load import cached_tokens
from tests.deploy.haproxy.proxy import Change, proxy

CLIENTS: Final = 8
REQUESTS: Final = 24
"""R-sized requests of one run of one side."""
TIMED: Final = 300
"""Small requests whose latency is compared, of each side."""
WORKLOAD: Final = {"contexts": 40, "times": 4, "at_once": 8}
ROUND_ROBIN: Final[Change] = ("balance hash var(txn.session)", "balance roundrobin")

Sides = dict[str, int]
"""Ports by name."""


def ranking_bodies(seed: int) -> list[bytes]:
    """R: a context of 256 tokens and 32 candidates, all of them new."""
    bodies = []
    for number in range(REQUESTS):
        (group,) = ranking(seed=1000 * seed + number)
        candidates = [list(candidate) for candidate in group.candidates]
        bodies.append(json.dumps({"context": group.context, "candidates": candidates}).encode())
    return bodies


def throughput(sides: Sides, runs: int) -> dict[str, float]:
    """R-sized requests a second of each side, medians of alternating cold runs."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(runs):
        # Who goes first takes turns, too.
        for place, name in enumerate(sorted(sides, reverse=bool(run % 2))):
            bodies = ranking_bodies(2 * run + place)
            seconds[name].append(closed_loop(sides[name], "/v1/score", bodies, CLIENTS))
    return {name: REQUESTS / median(taken) for name, taken in seconds.items()}


def latency(sides: Sides) -> dict[str, float]:
    """Median seconds of a request that is computed already, on a kept connection, in turns."""
    body = json.dumps({"context": list(range(100, 116)), "candidates": [[200], [201]]}).encode()
    connections = {
        name: http.client.HTTPConnection("127.0.0.1", port) for name, port in sides.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(TIMED):
        for name, connection in connections.items():
            seconds[name].append(seconds_of(lambda c=connection: _post(c, body)))  # type: ignore[misc]
    for connection in connections.values():
        connection.close()
    return {name: median(taken) for name, taken in seconds.items()}


def _post(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/v1/score", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise SystemExit(f"{response.status}: {content[:200]!r}")


def compare_speed(runs: int) -> None:
    """Print the first table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server() as port,
        proxy([port], Path(folder)) as proxied,
    ):
        proxied.await_up(1)
        sides = {"direct": port, "proxy": proxied.address[1]}
        latency(sides)
        rates, medians = throughput(sides, runs), latency(sides)
    ratio = rates["proxy"] / rates["direct"]
    Table(
        f"R-sized requests from {CLIENTS} clients, medians of {runs} alternating cold runs of "
        f"{REQUESTS}; p50 of {TIMED} small requests",
        *("requests/s direct", "through HAProxy", "ratio"),
        *("p50 direct ms", "through HAProxy", "added"),
    ).row(
        *(f"{rates['direct']:.2f}", f"{rates['proxy']:.2f}", f"{ratio:.1%}"),
        *(f"{1e3 * medians[name]:.2f}" for name in ("direct", "proxy")),
        f"{1e3 * (medians['proxy'] - medians['direct']):.2f}",
    )


def found_in_cache(url: str, salt: str) -> int:
    """Tokens that were found computed already."""
    with Client(url, session="context") as client:

        def ask(body: dict[str, Any]) -> int:
            return client.score(body).usage.cached_tokens

        return cached_tokens(ask, **WORKLOAD, salt=salt)


def compare_caches() -> None:
    """Print the second table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as both:
        ports = [both.enter_context(running_server(CHAINRULE_THREADS="1")) for _ in range(2)]
        alone = found_in_cache(f"http://127.0.0.1:{ports[0]}", "alone")
        found = {}
        for name, changes in (("hashed", ()), ("in turn", (ROUND_ROBIN,))):
            with proxy(ports, Path(folder), *changes) as proxied:
                proxied.await_up(1, 2)
                found[name] = found_in_cache(proxied.url, name)
    table = Table(
        f"Cached tokens over {WORKLOAD['contexts']} contexts, each asked {WORKLOAD['times']} "
        f"times, {WORKLOAD['at_once']} requests at once",
        *("who answers", "cached tokens", "of one replica's"),
    )
    table.row("one replica", f"{alone}", "100%")
    table.row("two, by X-Session-Id", f"{found['hashed']}", f"{found['hashed'] / alone:.1%}")
    table.row("two, in turn", f"{found['in turn']}", f"{found['in turn'] / alone:.1%}")


def _runs() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet_proxy", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each side")
    runs: int = parser.parse_args().runs
    if runs < 1:
        parser.error("--runs must be at least 1")
    return runs


if __name__ == "__main__":
    wanted = _runs()
    if shutil.which("haproxy") is None:
        sys.exit("haproxy is needed: apt-get install haproxy")
    compare_speed(wanted)
    compare_caches()
