"""Replicas behind Ray Serve, of the default model, one compute thread each.

    python -m benchmarks.fleet_ray scaling    one replica and two, on R-256
    python -m benchmarks.fleet_ray overhead   a server without Ray and one replica behind it
    python -m benchmarks.fleet_ray latency    the same two, with small requests
    python -m benchmarks.fleet_ray prefixes   cached tokens: one replica, two, two routed by queue
    python -m benchmarks.fleet_ray            all of them

R-256 is a context of 256 tokens with 32 candidates of 16 in the mean; every request has its own.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.arrivals import Arrival, Reply, play
from benchmarks.fleet_proxy import latency as small_latencies
from benchmarks.ray_fleet import RayFleet, ray_fleet
from benchmarks.server_process import DEFAULTS, running_server
from benchmarks.table import Table
from benchmarks.timing import median
from benchmarks.workloads import ids, ranking

CLIENTS = 8
"""Requests on their way at once, in a process of their own each half."""
PROCESSES = 2
ALONE = 20
"""Requests one after the other, for the latency."""
TOGETHER = 32
CONTEXTS, VISITS = 40, 5

Bodies = list[bytes]


def distinct(count: int, seed: int) -> Bodies:
    """R-256, another for each request."""
    groups = [ranking(seed=seed + number)[0] for number in range(count)]
    return [
        json.dumps({"context": group.context, "candidates": group.candidates}).encode()
        for group in groups
    ]


def revisited(seed: int) -> Bodies:
    """Many contexts in random order, each several times with candidates of its own."""
    rng = random.Random(seed)
    visits = [ids(rng, 256) for _ in range(CONTEXTS)] * VISITS
    rng.shuffle(visits)
    return [
        json.dumps({"context": context, "candidates": [ids(rng, 8)]}).encode() for context in visits
    ]


def send(port: int, bodies: Sequence[bytes], *, clients: int = CLIENTS) -> list[Reply]:
    """All of them, each client the next as soon as it has its answer."""
    arrivals = [Arrival(0.0, "score", "/v1/score", body) for body in bodies]
    processes = min(PROCESSES, clients)
    replies = play(port, arrivals, processes=processes, connections=clients // processes)
    refused = sum(reply.status != 200 for reply in replies)
    if refused:
        raise SystemExit(f"{refused} of {len(replies)} requests were refused")
    return replies


def rate(port: int, bodies: Sequence[bytes]) -> float:
    """Requests a second."""
    return len(bodies) / max(reply.done_s for reply in send(port, bodies))


def p50_ms(port: int, bodies: Sequence[bytes]) -> float:
    """Median latency of requests that follow each other."""
    return 1e3 * median([reply.service_s for reply in send(port, bodies, clients=1)])


@contextmanager
def fleet() -> Iterator[RayFleet]:
    """Ray, with the settings of the servers that others are compared with."""
    with ray_fleet(cpus=4, **DEFAULTS) as running:
        yield running


def deploy(running: RayFleet, replicas: int, router: str = "prefix") -> int:
    """So many replicas with nothing in their caches; the port."""
    # A setting that changes nothing makes Serve start every replica anew.
    fresh = f"{time.time():.6f}"
    running.deploy(num_replicas=replicas, threads=1, router=router, watchdog_timeout_s=fresh)
    running.await_replicas(replicas)
    send(running.port, distinct(CLIENTS, seed=900_000))
    return running.port


def scaling(runs: int) -> None:
    """Requests a second of one replica and of two."""
    table = Table(
        f"R-256, each request its own, {CLIENTS} clients; median of {runs} runs",
        *("replicas", "requests/s", "ratio"),
    )
    with fleet() as running:
        found = {}
        for replicas in (1, 2):
            port = deploy(running, replicas)
            seeds = [1_000 * (run + 1) + 100_000 * replicas for run in range(runs)]
            found[replicas] = median([rate(port, distinct(TOGETHER, seed)) for seed in seeds])
            table.row(str(replicas), f"{found[replicas]:.2f}", f"{found[replicas] / found[1]:.2f}x")


def overhead(runs: int) -> None:
    """The same requests to a server without Ray and to one replica behind it, in turns."""
    table = Table(
        f"R-256, each request its own, {CLIENTS} clients, and one client for the latency; "
        f"median of {runs} alternating runs",
        *("server", "requests/s", "ratio", "p50, ms", "added, ms"),
    )
    with fleet() as running, running_server(CHAINRULE_THREADS="1") as direct:
        ports = {"direct": direct, "Ray Serve, one replica": deploy(running, 1)}
        send(direct, distinct(CLIENTS, seed=900_000))
        rates: dict[str, list[float]] = {name: [] for name in ports}
        latencies: dict[str, list[float]] = {name: [] for name in ports}
        for run in range(runs):
            for name, port in ports.items():
                rates[name].append(rate(port, distinct(TOGETHER, seed=1_000 * run)))
                latencies[name].append(p50_ms(port, distinct(ALONE, seed=1_000 * run + 500)))
    for name in ports:
        ratio = median(rates[name]) / median(rates["direct"])
        added = median(latencies[name]) - median(latencies["direct"])
        table.row(
            *(name, f"{median(rates[name]):.2f}", f"{ratio:.1%}"),
            *(f"{median(latencies[name]):.1f}", f"{added:+.1f}"),
        )


def latency(runs: int) -> None:
    """What Ray adds to a small request that is computed already, in turns."""
    table = Table(
        f"Small requests on kept connections; median of {runs} runs",
        *("server", "p50, ms", "added, ms"),
    )
    with fleet() as running, running_server(CHAINRULE_THREADS="1") as direct:
        ports = {"direct": direct, "Ray Serve, one replica": deploy(running, 1)}
        small_latencies(ports)
        found = [small_latencies(ports) for _ in range(runs)]
    medians = {name: 1e3 * median([one[name] for one in found]) for name in ports}
    for name, taken in medians.items():
        table.row(name, f"{taken:.2f}", f"{taken - medians['direct']:+.2f}")


def prefixes(runs: int) -> None:
    """Tokens that were found computed, of all that were needed."""
    table = Table(
        f"{CONTEXTS} contexts of 256 tokens, {VISITS} visits each in random order, {CLIENTS} "
        f"clients; median of {runs} runs",
        *("replicas", "routed by", "cached tokens", "ratio"),
    )
    with fleet() as running:
        alone = 0.0
        for replicas, router in ((1, "prefix"), (2, "prefix"), (2, "ray")):
            counts = []
            for run in range(runs):
                port = deploy(running, replicas, router)
                replies = send(port, revisited(seed=7 + run))
                usage = [json.loads(reply.content)["usage"] for reply in replies]
                counts.append(float(sum(one["cached_tokens"] for one in usage)))
            alone = alone or median(counts)
            by = {"prefix": "context", "ray": "queue length"}[router]
            ratio = f"{median(counts) / alone:.1%}"
            table.row(str(replicas), by, f"{median(counts):.0f}", ratio)


BENCHMARKS = {"scaling": scaling, "overhead": overhead, "latency": latency, "prefixes": prefixes}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet_ray", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BENCHMARKS), choices=list(BENCHMARKS))
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    for name in arguments.names:
        BENCHMARKS[name](arguments.runs)
