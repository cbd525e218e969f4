"""Thousands of mixed requests, many of them abusive, and what the server holds afterwards.

Each well-behaved request is either one of a few whose answer was asked for beforehand, when nothing
else was there, and must come again bit by bit, or one that was never asked. Caches are so small
that they are full soon. Half of the requests warm up; what is held is compared between the middle
and the end, both times when everything has come to rest, and memory is fitted to the second half.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.soak.abuse import DAWDLE_S, EXPECTED, MAX_BODY_BYTES, Target, abuse
from tests.soak.process import Held, Observed, observed_server
from tests.soak.questions import KINDS, Kind, Words
from tests.soak.trend import Trend, trend

CLIENTS = 16
ABUSIVE = 0.25
"""Of the requests."""

KNOWN_SHARE = 0.5
"""Of the well-behaved."""

KNOWN = 4
"""Of each kind."""

SAMPLE_EVERY = 10
KEYS = ("first", "second", "third")
TIMEOUT_S = 120.0
SETTINGS = {
    "dtype": "float32",
    "max_queue_tokens": 4096,
    "max_batch_tokens": 256,
    "kv_cache_bytes": "2MiB",
    "score_cache_bytes": "256KiB",
    "api_keys": ",".join(KEYS),
    "max_body_bytes": MAX_BODY_BYTES,
    "header_timeout_s": DAWDLE_S,
    "body_timeout_s": DAWDLE_S,
}
_VOLATILE = frozenset({"id", "created", "timings_ms", "usage", "meta"})
_SLOTS_USED = "chainrule_cache_slots_used"


@dataclass(slots=True)
class Seen:
    """What a run has shown.

    Attributes:
        outcomes: by kind and how it ended.
        faults: outcomes that are not among the expected ones, and answers with other bits.
        memory: (requests so far, bytes resident).
        known: answers that were compared.
        seconds: of both halves together.
        middle, end: what was held at rest.
        slots: of the prefix cache, and how many of them were in use in the middle.
        complaints: errors in the server's log.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    known: int = 0
    seconds: float = 0.0
    middle: Held | None = None
    end: Held | None = None
    slots: tuple[float, float] = (0.0, 0.0)
    complaints: tuple[str, ...] = ()

    @property
    def trend(self) -> Trend:
        """Bytes of memory a request, over the second half."""
        return trend(self.memory)

    def share(self, outcome: str) -> float:
        """Of the well-behaved requests that work has to be done for, those that ended so."""
        work = {kind.name for kind in KINDS}
        counts = Counter[bool]()
        for (kind, how), count in self.outcomes.items():
            if kind in work:
                counts[how == outcome] += count
        return counts[True] / (counts[True] + counts[False])


def run(folder: Path, requests: int, leak: int = 0, seed: int = 0, known: int = KNOWN) -> Seen:
    """Send so many requests to a server of the model in ``folder``.

    Args:
        folder: a tiny Llama.
        requests: in all.
        leak: bytes that the server leaves behind at each request, on purpose.
        seed: of their order and what is new in them.
        known: requests of each kind whose answers are compared.
    """
    with observed_server(leak, KEYS[0], model=folder, **SETTINGS) as observed:
        seen = asyncio.run(_Soak(observed, seed, known).run(requests))
        seen.complaints = tuple(observed.complaints)
    return seen


class _Soak:
    def __init__(self, observed: Observed, seed: int, known: int) -> None:
        self._observed = observed
        self._seed = seed
        self._per_kind = known
        self._seen = Seen()
        self._known: dict[tuple[str, int], Any] = {}
        self._count = 0
        url = urlsplit(observed.url)
        self._address = (url.hostname or "", url.port or 80)

    async def run(self, requests: int) -> Seen:
        seen = self._seen
        async with self._client() as client:
            await self._ask_known(client)
        began = time.monotonic()
        await self._half(requests // 2)
        seen.middle = await self._at_rest(None)
        metric = self._observed.server.metric
        seen.slots = metric("chainrule_cache_slots"), metric(_SLOTS_USED)
        await self._half(requests)
        seen.seconds = time.monotonic() - began
        seen.end = await self._at_rest(seen.middle)
        return seen

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._observed.url, timeout=TIMEOUT_S)

    async def _at_rest(self, limit: Held | None) -> Held:
        idle = Held(threads=1 << 30, files=1 << 30, tasks=1 << 30, requests=0, tokens=0)
        held = await asyncio.to_thread(self._observed.settled, limit or idle)
        if limit is None:
            # Connections end a moment after their requests.
            await asyncio.sleep(1)
            held = await asyncio.to_thread(self._observed.held)
        return held

    async def _half(self, until: int) -> None:
        async with self._client() as client, asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(self._send_until(until, client))

    async def _send_until(self, until: int, client: httpx.AsyncClient) -> None:
        while self._count < until:
            number = self._count
            self._count += 1
            if number % SAMPLE_EVERY == 0:
                self._seen.memory.append((number, self._observed.resident()))
            source = random.Random(f"{self._seed} {number}")
            if source.random() < ABUSIVE:
                await self._abuse(source)
            else:
                await self._ask(source, client)

    async def _ask_known(self, client: httpx.AsyncClient) -> None:
        for kind in KINDS:
            for number in range(0 if kind.volatile else self._per_kind):
                status, answer = await _answer(client, kind, f"known {number}", KEYS[0])
                if status != 200:
                    raise RuntimeError(f"{kind.name} is answered with {status}: {answer}")
                self._known[kind.name, number] = answer

    async def _abuse(self, source: random.Random) -> None:
        kind = source.choice(list(EXPECTED))
        target = Target(*self._address, source.choice(KEYS))
        outcome = await abuse(kind, target, str(source.random()))
        self._note(kind, outcome, outcome in EXPECTED[kind] or outcome == "429")

    async def _ask(self, source: random.Random, client: httpx.AsyncClient) -> None:
        (kind,) = source.choices(KINDS, [kind.weight for kind in KINDS])
        key = source.choice(KEYS)
        number = source.randrange(KNOWN)
        is_known = source.random() < KNOWN_SHARE and (kind.name, number) in self._known
        seed = f"known {number}" if is_known else str(source.random())
        try:
            status, answer = await _answer(client, kind, seed, key)
        except httpx.TransportError as error:
            self._note(kind.name, type(error).__name__, False, str(error))
            return
        self._note(kind.name, str(status), status in (200, 429), str(answer)[:300])
        if is_known and status == 200:
            self._seen.known += 1
            if answer != self._known[kind.name, number]:
                self._seen.faults.append(f"{kind.name} {number} has other bits")

    def _note(self, kind: str, outcome: str, expected: bool, said: str = "") -> None:
        self._seen.outcomes[kind, outcome] += 1
        if not expected:
            self._seen.faults.append(f"{kind}: {outcome} {said}".rstrip())


async def _answer(client: httpx.AsyncClient, kind: Kind, seed: str, key: str) -> tuple[int, Any]:
    """The status, and the answer without what changes each time."""
    body = kind.make(Words(f"{kind.name} {seed}"))
    headers = {"Authorization": f"Bearer {key}"}
    method = "GET" if body is None else "POST"
    response = await client.request(method, kind.path, json=body, headers=headers)
    return response.status_code, None if kind.volatile else _constant(_read(response))


def _read(response: httpx.Response) -> Any:
    if not response.headers["content-type"].startswith("text/event-stream"):
        return response.json()
    lines = [line.removeprefix("data: ") for line in response.text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def _constant(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _constant(one) for key, one in value.items() if key not in _VOLATILE}
    return [_constant(one) for one in value] if isinstance(value, list) else value
