"""Sending: each request when it is due, whether or not earlier ones have been answered.

Latency counts from the moment a request was due. One that has to wait, because as many as may be
are on their way or because this process is late, has waited for the server as its caller sees it::

    due ──── waits for a connection ──── lag ──── sent ──── service ──── done
    └──────────────────────────── latency ───────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import aiohttp

from app.cli.bench.load import Load

Send = Callable[[bytes], Awaitable[tuple[str, str]]]
"""Sends a body; returns the outcome and, of a failure, what the server said."""

TIMEOUT = "timeout"
SAID_CHARS = 300

FINGERPRINT_HEADER = "X-Chainrule-Fingerprint"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one request, in seconds after the start.

    Attributes:
        due_s, sent_s, done_s: when it should have left, left, and ended.
        lag_s: how much of the time before it left was this process's own doing.
        capped: whether every connection was taken, so that it had to wait.
        outcome: the status, ``timeout``, or the kind of connection failure.
    """

    due_s: float
    sent_s: float
    done_s: float
    lag_s: float
    connection_limited: bool
    outcome: str

    @property
    def latency_s(self) -> float:
        """From when it was due to its end."""
        return self.done_s - self.due_s

    @property
    def ok(self) -> bool:
        """Whether it was answered with success."""
        return self.outcome.startswith("2")


@dataclass(slots=True)
class Record:
    """All that one process has sent, and the first words of each kind of failure.

    Attributes:
        fingerprints: of the models that answered, where they are named.
    """

    sent: list[Sent] = field(default_factory=list)
    error_samples: dict[str, str] = field(default_factory=dict)
    fingerprints: set[str] = field(default_factory=set)

    def outcomes(self) -> Counter[str]:
        """How many ended how."""
        return Counter(one.outcome for one in self.sent)


async def send_all(
    arrivals: Iterator[tuple[float, bytes]], send: Send, connections: int, timeout_s: float
) -> Record:
    """Send every arrival at its time, at most ``connections`` at once, and wait for the last."""
    record, free = Record(), asyncio.Semaphore(connections)
    zero = time.monotonic()
    unblocked = 0.0

    async def one(due: float, body: bytes, lag: float, capped: bool) -> None:
        sent = time.monotonic() - zero
        try:
            async with asyncio.timeout(timeout_s):
                outcome, said = await send(body)
        except TimeoutError:
            outcome, said = TIMEOUT, ""
        finally:
            free.release()
        record.sent.append(Sent(due, sent, time.monotonic() - zero, lag, capped, outcome))
        if said:
            record.error_samples.setdefault(outcome, said)

    async with asyncio.TaskGroup() as tasks:
        for due, body in arrivals:
            await asyncio.sleep(max(0.0, due - (time.monotonic() - zero)))
            lag = time.monotonic() - zero - max(due, unblocked)
            capped = free.locked() or due < unblocked
            if free.locked():
                await free.acquire()
                unblocked = time.monotonic() - zero
            else:
                await free.acquire()
            tasks.create_task(one(due, body, lag, capped))
    return record


def open_session(load: Load) -> aiohttp.ClientSession:
    """Connections to the server, as many as are wanted, without limits and habits of their own."""
    return aiohttp.ClientSession(
        headers=[("Content-Type", "application/json"), *load.headers],
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
    )


async def send_share(load: Load, process: int) -> Record:
    """Send one process's share of the load."""
    fingerprints: set[str] = set()

    async def send(body: bytes) -> tuple[str, str]:
        try:
            async with session.post(load.url, data=body, allow_redirects=False) as response:
                content = await response.read()
                fingerprints.update(response.headers.getall(FINGERPRINT_HEADER, ()))
        except aiohttp.ClientError as error:
            return type(error).__name__, str(error)[:SAID_CHARS]
        said = "" if response.status < 300 else content.decode(errors="replace")
        return str(response.status), said[:SAID_CHARS]

    async with open_session(load) as session:
        arrivals, share = load.arrivals(process), load.share(process)
        record = await send_all(arrivals, send, share, load.timeout_s)
    record.fingerprints |= fingerprints
    return record
