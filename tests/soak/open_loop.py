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

import aiohttp

from app.cli.bench.load import Load
from app.cli.bench.sender import Record, Sent, open_session, send_all

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
    def __init__(self, plan: Play, session: aiohttp.ClientSession) -> None:
        self._known = plan.known
        self._url = plan.load.url
        self._session = session

    async def send(self, body: bytes) -> tuple[str, str]:
        """The outcome: the status, with what is wrong about the answer if anything is."""
        try:
            async with self._session.post(self._url, data=body) as response:
                content = await response.read()
        except aiohttp.ClientError as error:
            return type(error).__name__, str(error)
        fault = self._fault(body, response, content)
        said = "" if response.status == 200 and not fault else content.decode(errors="replace")
        return f"{response.status}{fault}", said[:300]

    def _fault(self, body: bytes, response: aiohttp.ClientResponse, content: bytes) -> str:
        if response.status == 429:
            seconds = response.headers.get("Retry-After", "")
            return "" if seconds.isdigit() and int(seconds) >= 1 else " without Retry-After"
        if response.status != 200:
            return ""
        results = json.loads(content)["results"]
        expected = self._known.get(body.partition(_OWN)[0] + b"}")
        if expected is not None:
            return "" if results == expected else " with other bits"
        return "" if not any("error" in result for result in results) else " with errors"


async def _open(plan: Play) -> Record:
    load = plan.load
    async with open_session(load) as session:
        send = _Sender(plan, session).send
        return await send_all(_arrivals(plan), send, load.connections, load.timeout_s)


async def _closed(plan: Play) -> Record:
    record = Record()
    endless = replace(plan, load=replace(plan.load, rate=MOST_A_SECOND))
    bodies = (body for _, body in _arrivals(endless))
    began = time.monotonic()

    async def client() -> None:
        while (sent := time.monotonic() - began) < plan.load.end_s:
            outcome, said = await send(next(bodies))
            done = time.monotonic() - began
            record.sent.append(Sent(sent, sent, done, 0.0, False, outcome))
            if said:
                record.error_samples.setdefault(outcome, said)

    async with open_session(plan.load) as session, asyncio.TaskGroup() as tasks:
        send = _Sender(plan, session).send
        for _ in range(plan.clients):
            tasks.create_task(client())
    return record
