"""Clients that ask without a pause, and what became of each request."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

TIMEOUT_S = 60.0
CONTEXT_TOKENS = 200
VOCABULARY = range(100, 300)
"""Token ids that every tiny model has."""

Bits = tuple[float | None, ...]


def body_of(number: int, salt: str = "") -> dict[str, Any]:
    """The n-th request: a context of its own, four candidates."""
    source = random.Random(number)
    context = source.choices(VOCABULARY, k=CONTEXT_TOKENS)
    candidates = [source.choices(VOCABULARY, k=2) for _ in range(4)]
    return {"context": context, "candidates": candidates, "cache_salt": salt}


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        number: of its body.
        began, ended: moments of ``time.monotonic``.
        failure: the status or error; None for an answer.
        bits: the log-probabilities.
        fingerprint: the answer's header.
    """

    number: int
    began: float
    ended: float
    failure: str | None
    bits: Bits = ()
    fingerprint: str | None = None


@dataclass
class Load:
    """What was asked so far."""

    asked: list[Asked] = field(default_factory=list)

    @property
    def failures(self) -> list[Asked]:
        """Requests without an answer."""
        return [one for one in self.asked if one.failure is not None]

    def bits(self) -> dict[int, set[Bits]]:
        """By body: all the different answers that there were."""
        found: dict[int, set[Bits]] = {}
        for one in self.asked:
            if one.failure is None:
                found.setdefault(one.number, set()).add(one.bits)
        return found

    def await_more(self, count: int) -> None:
        """Wait for so many further answers."""
        wanted = len(self.asked) + count
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.asked) < wanted:
            assert time.monotonic() < deadline, "the load does not go on"
            time.sleep(0.01)


@contextmanager
def running_load(url: str, *, clients: int, bodies: int) -> Iterator[Load]:
    """Clients on connections of their own that ask until the block ends, half of them in sessions.
    None of them repeats a request."""
    load, over = Load(), threading.Event()

    def client(number: int) -> None:
        source = random.Random(number)
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as http:
            while not over.is_set():
                load.asked.append(_ask(http, source.randrange(bodies), in_session=number % 2 == 0))

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        try:
            yield load
        finally:
            over.set()
            for one in running:
                one.result()


def _ask(http: httpx.Client, number: int, *, in_session: bool) -> Asked:
    headers = {"X-Session-Id": f"context {number}"} if in_session else {}
    began = time.monotonic()
    try:
        answer = http.post("/v1/score", json=body_of(number), headers=headers)
    except httpx.TransportError as error:
        return Asked(number, began, time.monotonic(), repr(error))
    ended = time.monotonic()
    if answer.status_code != 200:
        return Asked(number, began, ended, f"{answer.status_code} {answer.text}")
    bits = tuple(one["logprob"] for one in answer.json()["results"])
    return Asked(number, began, ended, None, bits, answer.headers["X-Chainrule-Fingerprint"])


def cached_tokens(
    ask: Callable[[dict[str, Any]], int], *, contexts: int, times: int, at_once: int, salt: str
) -> int:
    """Tokens found computed already over a workload of many contexts, each asked several times.

    Args:
        ask: sends a body, returns the tokens found cached for it.
        contexts, times: how many, and how often each.
        at_once: requests in flight.
        salt: keeps runs on one server apart.
    """
    order = [number for number in range(contexts) for _ in range(times)]
    random.Random(7).shuffle(order)
    turn = itertools.count()
    with ThreadPoolExecutor(at_once) as pool:
        return sum(pool.map(lambda number: ask(body_of(number, salt) | _own(next(turn))), order))


def _own(turn: int) -> dict[str, Any]:
    """Candidates that no other request has, so that nothing but contexts is found."""
    return {"candidates": [random.Random(10_000 + turn).choices(VOCABULARY, k=3)]}
