"""Thousands of mixed requests, many of them abusive, and what the server holds afterwards.

Each well-behaved request is either one of a few whose answer was asked for beforehand, when nothing
else was there, and must come again bit by bit, or one that was never asked. Caches are so small
that they are full soon. The run has three parts:

1. Warm-up, until what grows with the number of different requests has stopped.
2. What is measured: a line is fitted to the memory, and what is held is compared before and after,
   both times when everything has come to rest.
3. The control: the same once more with a leak planted into the server, which has to show.
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
from tests.soak.observed_server import ALLOCATED
from tests.soak.process import Held, Observed, observed_server
from tests.soak.questions import KINDS, Kind, Words
from tests.soak.trend import Trend, trend

CLIENTS = 16
ABUSIVE = 0.25
"""Of the requests."""

KNOWN_SHARE = 0.5
"""Of the well-behaved."""

SAMPLE_EVERY = 5
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


@dataclass(frozen=True, slots=True)
class Plan:
    """How long it takes.

    Attributes:
        warm_up, measured, leaking: requests of the three parts.
        leak: bytes that each request of the third part leaves behind.
        known: requests of each kind whose answers are compared.
        seed: of the order of requests and of what is new in them.
    """

    warm_up: int = 6000
    measured: int = 10_000
    leaking: int = 2000
    leak: int = 20_480
    known: int = 4
    seed: int = 0


@dataclass(slots=True)
class Seen:
    """What a run has shown.

    Attributes:
        outcomes: by kind and how it ended.
        faults: outcomes that are not among the expected ones, and answers with other bits.
        memory: (requests so far, bytes allocated) of each part.
        resident: the same of the bytes that are resident.
        known: answers that were compared.
        seconds: of the second part.
        before, after: what was held at rest before and after the second part.
        slots: of the prefix cache, and how many of them were in use before the second part.
        complaints: errors in the server's log.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: list[list[tuple[float, float]]] = field(default_factory=list)
    resident: list[list[tuple[float, float]]] = field(default_factory=list)
    known: int = 0
    seconds: float = 0.0
    before: Held | None = None
    after: Held | None = None
    slots: tuple[float, float] = (0.0, 0.0)
    complaints: tuple[str, ...] = ()

    def trend(self, part: int) -> Trend:
        """Bytes that a request leaves allocated; parts count from 0."""
        return trend(sorted(self.memory[part]))

    def share(self, outcome: str) -> float:
        """Of the well-behaved requests that work has to be done for, those that ended so."""
        work = {kind.name for kind in KINDS}
        counts = Counter[bool]()
        for (kind, how), count in self.outcomes.items():
            if kind in work:
                counts[how == outcome] += count
        return counts[True] / (counts[True] + counts[False])


def run(folder: Path, plan: Plan) -> Seen:
    """Send the requests to a server of the tiny Llama in ``folder``."""
    with observed_server(KEYS[0], model=folder, **SETTINGS) as observed:
        seen = asyncio.run(_Soak(observed, plan).run())
        seen.complaints = tuple(observed.complaints)
    return seen


class _Soak:
    def __init__(self, observed: Observed, plan: Plan) -> None:
        self._observed = observed
        self._plan = plan
        self._seen = Seen()
        self._known: dict[tuple[str, int], Any] = {}
        self._count = 0
        url = urlsplit(observed.url)
        self._address = (url.hostname or "", url.port or 80)

    async def run(self) -> Seen:
        seen, plan, observed = self._seen, self._plan, self._observed
        async with self._client() as client:
            await self._ask_known(client)
        await self._send(plan.warm_up)
        seen.before = await self._at_rest(None)
        metric = observed.server.metric
        seen.slots = metric("chainrule_cache_slots"), metric(_SLOTS_USED)
        began = time.monotonic()
        await self._send(plan.measured)
        seen.seconds = time.monotonic() - began
        seen.after = await self._at_rest(seen.before)
        observed.plant_leak(plan.leak)
        await self._send(plan.leaking)
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

    async def _send(self, requests: int) -> None:
        """The next part."""
        self._seen.memory.append([])
        self._seen.resident.append([])
        until = self._count + requests
        async with self._client() as client, asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(self._send_until(until, client))

    async def _send_until(self, until: int, client: httpx.AsyncClient) -> None:
        while self._count < until:
            number = self._count
            self._count += 1
            if number % SAMPLE_EVERY == 0:
                await self._sample(number, client)
            source = random.Random(f"{self._plan.seed} {number}")
            if source.random() < ABUSIVE:
                await self._abuse(source)
            else:
                await self._ask(source, client)

    async def _sample(self, number: int, client: httpx.AsyncClient) -> None:
        self._seen.resident[-1].append((number, self._observed.resident()))
        answer = await client.get(ALLOCATED, headers={"Authorization": f"Bearer {KEYS[0]}"})
        self._seen.memory[-1].append((number, int(answer.text)))

    async def _ask_known(self, client: httpx.AsyncClient) -> None:
        for kind in KINDS:
            for number in range(0 if kind.volatile else self._plan.known):
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
        number = source.randrange(self._plan.known)
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
