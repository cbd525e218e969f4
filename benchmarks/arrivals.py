"""Requests that arrive when they are due, whether or not earlier ones have been answered.

Several processes send them, since one Python process would be the bottleneck. Latency counts
from the moment a request was due, so a late client is the server's delay, not a gap in the load.
"""

from __future__ import annotations

import http.client
import multiprocessing
import queue
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PROCESSES = 4
CONNECTIONS = 32
"""Keep-alive connections of a process: so many requests can be on their way."""

IDLE_S = 60
"""A connection that was idle for longer is opened anew; servers close theirs at some time."""

OVERLOADED = 429


@dataclass(frozen=True, slots=True)
class Arrival:
    """A POST request that is due so many seconds after the start."""

    due_s: float
    kind: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of an arrival; seconds after the start."""

    kind: str
    due_s: float
    sent_s: float
    done_s: float
    status: int
    content: bytes

    @property
    def latency_s(self) -> float:
        """From when it was due to the end of its answer."""
        return self.done_s - self.due_s

    @property
    def service_s(self) -> float:
        """From when it was sent to the end of its answer."""
        return self.done_s - self.sent_s


def poisson(rng: random.Random, rate: float, seconds: float) -> list[float]:
    """Times of independent arrivals at ``rate`` a second, ascending, within ``seconds``."""
    times: list[float] = []
    now = rng.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += rng.expovariate(rate)
    return times


def play(
    port: int,
    arrivals: Sequence[Arrival],
    *,
    processes: int = PROCESSES,
    connections: int = CONNECTIONS,
) -> list[Reply]:
    """Send every arrival when it is due; the replies in order of completion.

    With one process and one connection they follow each other, in their order.

    Raises:
        SystemExit: a reply is neither 200 nor 429 (overload, which belongs to the picture).
    """
    context = multiprocessing.get_context("spawn")
    start, replies = context.Barrier(processes), context.SimpleQueue()
    workers = [
        context.Process(
            target=_client_process, args=(port, arrivals[i::processes], connections, start, replies)
        )
        for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    received: list[Reply] = [reply for _ in workers for reply in replies.get()]
    for worker in workers:
        worker.join()
    for reply in received:
        if reply.status not in (200, OVERLOADED):
            raise SystemExit(f"{reply.kind}: status {reply.status}: {reply.content[:300]!r}")
    return sorted(received, key=lambda reply: reply.done_s)


def _client_process(
    port: int, arrivals: Sequence[Arrival], connections: int, start: Any, replies: Any
) -> None:
    todo: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
    for arrival in sorted(arrivals, key=lambda arrival: arrival.due_s):
        todo.put(arrival)
    done: list[Reply] = []
    start.wait()
    zero = time.monotonic()
    threads = [
        threading.Thread(target=_client, args=(port, todo, done, zero))
        for _ in range(min(connections, len(arrivals)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replies.put(done)


def _client(port: int, todo: queue.SimpleQueue[Arrival], done: list[Reply], zero: float) -> None:
    """One connection: the next arrival, once it is due, until none is left."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    used = 0.0
    while True:
        try:
            arrival = todo.get_nowait()
        except queue.Empty:
            connection.close()
            return
        time.sleep(max(0.0, arrival.due_s - (time.monotonic() - zero)))
        sent = time.monotonic() - zero
        if sent - used > IDLE_S:
            connection.close()
        done.append(_send(connection, arrival, sent, zero))
        used = done[-1].done_s


def _send(
    connection: http.client.HTTPConnection, arrival: Arrival, sent: float, zero: float
) -> Reply:
    headers = {"Content-Type": "application/json"}
    connection.request("POST", arrival.path, arrival.body, headers)
    response = connection.getresponse()
    content = response.read()
    now = time.monotonic() - zero
    return Reply(arrival.kind, arrival.due_s, sent, now, response.status, content)
