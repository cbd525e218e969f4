"""Ten times as much work as a server can do, and what becomes of it.

1. Alone: the latency of one request after the other, and the answers that are compared later.
2. Capacity: as many clients as the queue holds, each sends again as soon as it is answered.
3. Overload: arrivals at random, ``factor`` times the capacity, whether or not anything is answered.
4. After: the queue is empty, and one request after the other takes as long as before.

Goodput is what is answered with 200 before its own ``timeout_ms``, a second of the overload.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.cli.bench.load import Load
from app.cli.bench.report import percentile
from app.cli.bench.request_bodies import SHAPES
from app.cli.bench.sender import Record
from app.cli.bench.workload import Questions, Workload
from tests.soak.open_loop import Known, Play, play, treated
from tests.soak.process import Observed, Sampler, observed_server
from tests.soak.trend import Trend, second_half, trend
from tests.tiny_models import save_tiny_model

WORKLOAD = Workload(context_tokens=60, candidates=2, candidate_tokens=6)
"""About 200 tokens of the tiny tokenizer."""

MODEL = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}
"""A Llama of 20 million weights: some 60 ms for a request on two cores."""

QUEUE_TOKENS = 6144
BATCH_TOKENS = 1024
TIMEOUT_MS = 30_000
KNOWN = 16
CONNECTIONS = 900
SAMPLE_S = 0.25
FULL = 0.9
"""Of the queue, by the clients that measure the capacity."""

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long it takes.

    Attributes:
        capacity_s: seconds of the second step, of which the first third does not count.
        overload_s: seconds of the third.
        factor: times the capacity that is offered.
        alone: requests of the first step, and of the last.
    """

    capacity_s: float = 30.0
    overload_s: float = 60.0
    factor: float = 10.0
    alone: int = 40


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. Times in milliseconds, rates a second.

    Attributes:
        capacity: answers.
        request_tokens: that the queue holds for a request, on average.
        asked, offered: requests that should have been sent, and that were sent in time.
        lag_p99_ms: of the times by which the generator was late.
        outcomes: requests of the overload by status and what was wrong.
        generator: part of the machine's CPU time that the generator took from the server.
        goodput: answers in time.
        p50_ms, p99_ms: of the admitted, from when they were due.
        bound_ms: for the 99th percentile, see ``bound_ms``.
        refused_p50_ms, refused_p99_ms: of the refused, from when they were sent.
        before_ms, after_ms: medians alone.
        resident: bytes at the end of the overload.
        memory: trend of the resident bytes over the requests of the overload's second half.
        queued: tokens in the queue at the end.
        complaints: errors in the server's log.
        said: words of the failures.
    """

    capacity: float
    request_tokens: float
    asked: float
    offered: float
    lag_p99_ms: float
    outcomes: Counter[str]
    generator: float
    goodput: float
    p50_ms: float
    p99_ms: float
    bound_ms: float
    refused_p50_ms: float
    refused_p99_ms: float
    before_ms: float
    after_ms: float
    resident: int
    memory: Trend
    queued: float
    complaints: tuple[str, ...]
    said: dict[str, str]


def save_model(folder: Path) -> Path:
    """The model that is overloaded, with random weights."""
    return save_tiny_model("llama", folder, **MODEL)


def run(folder: Path, plan: Plan) -> Figures:
    """Overload a server of the model in ``folder``, which computes on all cores but one.

    With threads on all of them a forward waits for the core that refuses requests meanwhile.
    """
    settings = {
        "threads": max(1, (os.cpu_count() or 1) - 1),
        "model": folder,
        "dtype": "float32",
        "max_queue_tokens": QUEUE_TOKENS,
        "max_batch_tokens": BATCH_TOKENS,
        "kv_cache_bytes": "256MiB",
    }
    with observed_server(**settings) as observed:
        return _run(observed, plan)


def bound_ms(tokens_per_s: float) -> float:
    """How long the admitted may take: the tokens of a full queue and of a batch, worked off at the
    rate of the overload itself.

    What is admitted waits for no more than is in the queue already. The batch is there since the
    queue's tokens are given back when the batch that holds them has ended.
    """
    return 1e3 * (QUEUE_TOKENS + BATCH_TOKENS) / tokens_per_s


def _run(observed: Observed, plan: Plan) -> Figures:
    known, tokens = _known(observed)
    before = _alone(observed, known, plan.alone, "before")
    load = Load(f"{observed.url}/v1/score", workload=WORKLOAD, connections=CONNECTIONS)
    warm = plan.capacity_s / 3
    closed = replace(load, warmup_s=warm, duration_s=plan.capacity_s - warm, seed=1)
    clients = int(FULL * QUEUE_TOKENS / tokens)
    capacity = _goodput(play(Play(closed, known, TIMEOUT_MS, clients))[0], closed)
    rate = plan.factor * capacity
    opened = replace(load, rate=rate, duration_s=plan.overload_s, seed=2)
    with Sampler(observed.resident, SAMPLE_S) as sampler:
        record, generator_s = play(Play(opened, known, TIMEOUT_MS))
    offered = sum(one.sent_s < opened.end_s for one in record.sent) / opened.duration_s
    goodput = _goodput(record, opened)
    admitted = [1e3 * one.latency_s for one in record.sent if one.ok]
    refused = [1e3 * (one.done_s - one.sent_s) for one in record.sent if one.outcome == "429"]
    return Figures(
        capacity=capacity,
        request_tokens=tokens,
        asked=rate,
        offered=offered,
        lag_p99_ms=_percentile([1e3 * one.lag_s for one in record.sent], 0.99),
        outcomes=record.outcomes(),
        generator=generator_s / opened.duration_s / (os.cpu_count() or 1),
        goodput=goodput,
        p50_ms=_percentile(admitted, 0.5),
        p99_ms=_percentile(admitted, 0.99),
        bound_ms=bound_ms(goodput * tokens),
        refused_p50_ms=_percentile(refused, 0.5),
        refused_p99_ms=_percentile(refused, 0.99),
        resident=observed.resident(),
        memory=trend([(s * offered, size) for s, size in second_half(sampler.samples)]),
        queued=observed.queued_at_last(),
        before_ms=before,
        after_ms=_alone(observed, known, plan.alone, "after"),
        complaints=tuple(observed.complaints),
        said=record.error_samples,
    )


def _known(observed: Observed) -> tuple[Known, float]:
    """Requests and their results alone, and the tokens that one feeds to the model on average."""
    questions = Questions(WORKLOAD, "known")
    known: dict[bytes, Any] = {}
    fed = 0
    for _ in range(KNOWN):
        body = SHAPES["score"].of(questions.next(), WORKLOAD)
        answer = observed.server.post("/v1/score", body | {"cache_salt": "known"})
        known[json.dumps(body).encode()] = answer["results"]
        fed += answer["usage"]["computed_tokens"]
    return known, fed / KNOWN


def _alone(observed: Observed, known: Known, count: int, salt: str) -> float:
    """The median milliseconds of requests that follow each other."""
    bodies = list(known)
    times = []
    for number in range(count):
        body = treated(bodies[number % len(bodies)], TIMEOUT_MS, f"{salt} {number}")
        began = time.perf_counter()
        response = observed.server.client.post("/v1/score", content=body, headers=JSON)
        times.append(1e3 * (time.perf_counter() - began))
        if response.status_code != 200:
            raise RuntimeError(f"a request alone was answered {response.status_code}")
    return statistics.median(times)


def _goodput(record: Record, load: Load) -> float:
    """Answers in time, a second of what counts."""
    good = [
        one
        for one in record.sent
        if one.ok
        and 1e3 * one.latency_s <= TIMEOUT_MS
        and load.warmup_s <= one.done_s < load.end_s
        and one.outcome == "200"
    ]
    return len(good) / load.duration_s


def _percentile(values: Sequence[float], share: float) -> float:
    return percentile(values, share) if values else math.nan
