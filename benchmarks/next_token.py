"""`make bench`: a single next token, against a bare forward of the same runner.

In process the two alternate. Over HTTP requests arrive at 5 % of what one connection could ask,
and what is added is the latency of each less what the server itself says its forward took.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import workloads
from benchmarks.agreement import check_same
from benchmarks.arrivals import Arrival, Reply, play, poisson
from benchmarks.bare import Bare
from benchmarks.in_process import InProcess
from benchmarks.server_process import request, running_server
from benchmarks.table import Table
from benchmarks.timing import alternate, median, percentile
from model_runtime import LogprobQuery, LogprobResult

LOAD = 0.05
SAMPLES_A_RUN = 10
"""Requests for each of ``runs``: percentiles want more than a median of three."""

TOP_K = 10
"""Of the route by default; it asks for the entropy as well."""

PATH = "/v1/next_token"


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds of each request, and of its forward alone."""

    forwards: list[float]
    requests: list[float]

    @property
    def added(self) -> list[float]:
        """What each request took besides its forward."""
        return [whole - part for whole, part in zip(self.requests, self.forwards, strict=True)]


def question(context: tuple[int, ...], salt: str) -> LogprobQuery:
    """What the route asks the engine for token ids and no settings."""
    return LogprobQuery(context, len(context), (), TOP_K, summary=True, cache_salt=salt)


class OneToken:
    """The engine and a bare runner beside it, asked the same."""

    def __init__(self, ours: InProcess, bare: Bare, context: tuple[int, ...]) -> None:
        self._ours, self._bare, self._context = ours, bare, context
        self._salt = ours.fresh_salt()
        self.ask_cached()

    def ask_cold(self) -> tuple[LogprobResult, int]:
        return self._ask(self._ours.fresh_salt())

    def ask_cached(self) -> tuple[LogprobResult, int]:
        """The context is cached; its last token is fed again, for its row."""
        return self._ask(self._salt)

    def _ask(self, salt: str) -> tuple[LogprobResult, int]:
        (answer,), computed = self._ours.score([question(self._context, salt)])
        return answer, computed

    def measure(self, ask: Callable[[], tuple[LogprobResult, int]], samples: int) -> Latencies:
        """Alternate the engine with a bare forward of the same batch."""
        batch = self._bare.plan([question(self._context, "")])
        answer, computed = ask()
        check_same("tokens fed", computed, len(batch.token_ids))
        check_same("the distribution", [answer], self._bare.answer(batch))
        sides = {"forward": lambda: self._bare.forward(batch), "request": ask}
        seconds = alternate(sides, samples)
        self._bare.keep(batch)
        return Latencies(seconds["forward"], seconds["request"])


def over_http(port: int, context: tuple[int, ...], forward_s: float, samples: int) -> list[Reply]:
    """Replies at ``LOAD``, one after the other, the context cached but for its last token."""
    body = json.dumps({"context": list(context)}).encode()
    for _ in range(3):
        request(port, "POST", PATH, body)
    rate = LOAD / forward_s
    dues = poisson(random.Random(7), rate, 2 * samples / rate)[:samples]
    arrivals = [Arrival(due, "next token", PATH, body) for due in dues]
    return play(port, arrivals, processes=1, connections=8)


def read_http(replies: Sequence[Reply], answer: LogprobResult) -> Latencies:
    """Latencies of replies that were computed from one token and say what ``answer`` says."""
    forwards, requests = [], []
    for reply in replies:
        content = json.loads(reply.content)
        if content["usage"]["reused_scores"]:
            continue  # it came while the same was asked, and got that answer: nothing was computed
        requests.append(reply.service_s)
        check_same("tokens fed over HTTP", content["usage"]["computed_tokens"], 1)
        found = [(token["id"], token["logprob"]) for token in content["tokens"]]
        check_same("the distribution over HTTP", found, [tuple(token) for token in answer.top[0]])
        forwards.append(content["timings_ms"]["model"] / 1e3)
    return Latencies(forwards, requests)


def run(runs: int) -> None:
    """Print the table."""
    samples = SAMPLES_A_RUN * runs
    (context,) = workloads.prompts(1)
    with InProcess() as ours:
        one = OneToken(ours, Bare(), context)
        cold = one.measure(one.ask_cold, max(3, samples // 3))
        cached = one.measure(one.ask_cached, samples)
        answer, _ = one.ask_cached()
    with running_server() as port:
        served = read_http(over_http(port, context, median(cached.forwards), samples), answer)
    table = Table(
        "Next token behind 256, float32, ms; forward and request alternate, over HTTP the forward "
        f"is the server's own timing of the same request, at {LOAD:.0%} load",
        *("context", "requests", "forward p50", "forward p99", "request p50", "request p99"),
        "added p50",
    )
    table.row("cold, in process", *cells(cold))
    table.row("cached but its last token, in process", *cells(cached))
    table.row("the same over HTTP", *cells(served))


def cells(latencies: Latencies) -> list[str]:
    """The numbers of a row, in ms."""
    figures = (
        *(percentile(latencies.forwards, share) for share in (0.5, 0.99)),
        *(percentile(latencies.requests, share) for share in (0.5, 0.99)),
        percentile(latencies.added, 0.5),
    )
    return [str(len(latencies.requests)), *(f"{1e3 * seconds:.2f}" for seconds in figures)]
