"""`make bench`: mixed requests that arrive at random, at shares of what the server can do.

Three steps against one server: every kind alone, for its latency without load; many requests at
once, for the capacity; then Poisson arrivals at shares of it. An answer is in time when it
took at most ``IN_TIME`` times its kind's latency without load; goodput counts those.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from benchmarks.arrivals import PROCESSES, Reply, play, poisson
from benchmarks.mix import Mix
from benchmarks.server_process import running_server
from benchmarks.table import Table
from benchmarks.timing import median, percentile

LOADS = (0.3, 0.6, 0.9)
IN_TIME = 5.0
ALONE = 3
"""Requests of each kind that are sent one after the other."""

CAPACITY_REQUESTS, CAPACITY_CLIENTS = 96, 32
SECONDS_A_RUN = 10
"""Of arrivals at each load, for each of ``runs``."""


def unloaded(port: int) -> dict[str, float]:
    """Median latency of each kind, nothing else being there, shared contexts cached.

    A first request of each kind warms up.
    """
    latencies = {}
    play(port, Mix(0).first_visits())
    for number, kind in enumerate(Mix(0).kinds()):
        mix = Mix(1000 + number)
        arrivals = [mix.arrival(kind, 0.0) for _ in range(1 + ALONE)]
        replies = play(port, arrivals, processes=1, connections=1)
        latencies[kind] = median([reply.service_s for reply in replies[1:]])
    return latencies


def capacity(port: int) -> float:
    """Requests a second of the mix when ``CAPACITY_CLIENTS`` clients never pause."""
    arrivals = Mix(1).arrivals([0.0] * CAPACITY_REQUESTS)
    replies = play(port, arrivals, connections=CAPACITY_CLIENTS // PROCESSES)
    answered = [reply for reply in replies if reply.status == 200]
    return len(answered) / max(reply.done_s for reply in replies)


def in_time(replies: Sequence[Reply], alone: Mapping[str, float]) -> int:
    """How many were answered, and within ``IN_TIME`` times their kind's latency without load."""
    return sum(
        reply.status == 200 and reply.latency_s <= IN_TIME * alone[reply.kind] for reply in replies
    )


def run(runs: int) -> None:
    """Print the table."""
    seconds = SECONDS_A_RUN * runs
    with running_server() as port:
        alone = unloaded(port)
        most = capacity(port)
        table = Table(
            f"Mixed open-loop load over HTTP, {PROCESSES} client processes, {seconds} s of Poisson "
            f"arrivals at shares of {most:.2f} requests/s; in time is {IN_TIME:.0f}x the latency "
            "without load",
            *("load", "kind", "requests", "alone, ms", "p50, ms", "p95, ms", "p99, ms"),
            *("in time", "goodput, requests/s"),
        )
        for number, load in enumerate(LOADS):
            dues = poisson(random.Random(number), load * most, seconds) or [0.0]
            replies = play(port, Mix(10 + number).arrivals(dues))
            report(table, load, replies, alone)


def report(table: Table, load: float, replies: Sequence[Reply], alone: Mapping[str, float]) -> None:
    """A row for each kind that has arrived, and one for all."""
    lasted = max(reply.done_s for reply in replies)
    for kind, latency in alone.items():
        own = [reply for reply in replies if reply.kind == kind]
        if own:
            latencies = [1e3 * reply.latency_s for reply in own]
            figures = [percentile(latencies, share) for share in (0.5, 0.95, 0.99)]
            table.row(
                *(f"{load:.0%}", kind, str(len(own)), f"{1e3 * latency:.0f}"),
                *(f"{figure:.0f}" for figure in figures),
                *_goodput(own, alone, lasted),
            )
    count = str(len(replies))
    table.row(f"{load:.0%}", "all", count, *["-"] * 4, *_goodput(replies, alone, lasted))


def _goodput(
    replies: Sequence[Reply], alone: Mapping[str, float], lasted: float
) -> tuple[str, str]:
    good = in_time(replies, alone)
    return f"{good / len(replies):.0%}", f"{good / lasted:.2f}"
