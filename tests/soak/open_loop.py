"""A load of scores from a process of its own, whose answers are compared with known ones."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from app.cli.bench.http_client import Answer, BadAnswer, Connections
from app.cli.bench.load import Load
from app.cli.bench.sender import Record, Sent, send_all

KNOWN_EVERY = 8
"""One request in so many is one whose answer is known."""

MOST_A_SECOND = 10_000.0
"""Bodies that clients who wait for answers could use up."""

_OWN = b', "timeout_ms": '

Known = Mapping[bytes, Any]
"""The body of a request -> the results that it has when it is alone."""


@dataclass(frozen=True, slots=True)
class Play:
    """A load and what is known of it.

    Attributes:
        load: of shape ``score``.
        known: requests that are mixed in, each time under another cache salt, so that each costs
            what it would cost for the first time.
        timeout_ms: of every request.
        clients: 0 for arrivals at the load's rate; otherwise as many clients that each send their
            next request as soon as they are answered, for as long as the load lasts.
    """

    load: Load
    known: Known = field(default_factory=dict)
    timeout_ms: int = 60_000
    clients: int = 0


def play(plan: Play) -> tuple[Record, float]:
    """Make the load in another process: what became of it, and CPU seconds of that process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_play, plan).result()


def treated(body: bytes, timeout_ms: int, salt: str) -> bytes:
    """The body with its time and a cache salt."""
    return b'%s%s%d, "cache_salt": "%s"}' % (body[:-1], _OWN, timeout_ms, salt.encode())


def _play(plan: Play) -> tuple[Record, float]:
    began = time.process_time()
    record = asyncio.run(_closed(plan) if plan.clients else _open(plan))
    return record, time.process_time() - began


def _arrivals(plan: Play) -> Iterator[tuple[float, bytes]]:
    known = list(plan.known)
    for count, (due, body) in enumerate(plan.load.arrivals(0)):
        round_, place = divmod(count, KNOWN_EVERY)
        if known and place == 0:
            body = known[round_ % len(known)]
        yield due, treated(body, plan.timeout_ms, f"{plan.load.rate:g} {count}")


class _Sender:
    def __init__(self, plan: Play) -> None:
        self._known = plan.known
        self._connections = Connections(plan.load.url, plan.load.headers)

    async def send(self, body: bytes) -> tuple[str, str]:
        """The outcome: the status, with what is wrong about the answer if anything is."""
        try:
            answer = await self._connections.post(body)
        except (OSError, BadAnswer) as error:
            return type(error).__name__, str(error)
        fault = self._fault(body, answer)
        said = "" if answer.status == 200 and not fault else answer.content.decode(errors="replace")
        return f"{answer.status}{fault}", said[:300]

    def _fault(self, body: bytes, answer: Answer) -> str:
        if answer.status == 429:
            seconds = answer.headers.get(b"retry-after", b"")
            return "" if seconds.isdigit() and int(seconds) >= 1 else " without Retry-After"
        if answer.status != 200:
            return ""
        results = json.loads(answer.content)["results"]
        expected = self._known.get(body.partition(_OWN)[0] + b"}")
        if expected is not None:
            return "" if results == expected else " with other bits"
        return "" if all(result["error"] is None for result in results) else " with errors"

    def close(self) -> None:
        self._connections.close()


async def _open(plan: Play) -> Record:
    sender = _Sender(plan)
    try:
        load = plan.load
        return await send_all(_arrivals(plan), sender.send, load.connections, load.timeout_s)
    finally:
        sender.close()


async def _closed(plan: Play) -> Record:
    record, sender = Record(), _Sender(plan)
    endless = replace(plan, load=replace(plan.load, rate=MOST_A_SECOND))
    bodies = (body for _, body in _arrivals(endless))
    began = time.monotonic()

    async def client() -> None:
        while (sent := time.monotonic() - began) < plan.load.end_s:
            outcome, said = await sender.send(next(bodies))
            done = time.monotonic() - began
            record.sent.append(Sent(sent, sent, done, 0.0, False, outcome))
            if said:
                record.error_samples.setdefault(outcome, said)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(plan.clients):
                tasks.create_task(client())
    finally:
        sender.close()
    return record
