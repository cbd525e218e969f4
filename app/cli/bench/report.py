"""What a load has shown: counts, latencies, rates, and whether the generator itself kept up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

from app.cli.bench.load import Load
from app.cli.bench.sender import TIMEOUT, Record, Sent

SHARES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

LATE_MS: Final = 10.0
"""A generator that sends one request in a hundred later than this has not kept up."""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Of one run; requests of the warm-up are not counted.

    Attributes:
        rate: arrivals a second that were asked for.
        sent: requests that were due within the run.
        offered: those a second.
        ok: answers with success.
        achieved: successful answers a second that came within the run.
        outcomes: requests by status, ``timeout`` and kinds of connection failure.
        said: the first words of each kind of failure.
        latency_ms: percentiles and mean, from when a request was due to its end, over successes
            and timeouts; a timeout counts as long as it was waited for, so it is a lower bound.
            Empty where there are none.
        slo_ms: what counts as in time; None where nobody asked.
        good: successes in time.
        goodput: those a second.
        capped: requests that found every connection taken, and waited for one.
        lag_p99_ms: of the times by which the generator itself was late.
        fingerprints: of the models that answered; empty where the server names none.
    """

    rate: float
    sent: int
    offered: float
    ok: int
    achieved: float
    outcomes: dict[str, int]
    error_samples: dict[str, str]
    latency_ms: dict[str, float]
    slo_ms: float | None
    good: int | None
    goodput: float | None
    connection_limited: int
    lag_p99_ms: float
    fingerprints: list[str]

    @property
    def of_one_model(self) -> bool:
        """Whether no two answers came from different models."""
        return len(self.fingerprints) <= 1

    @property
    def kept_up(self) -> bool:
        """Whether what was measured is the server rather than the generator."""
        return self.lag_p99_ms <= LATE_MS

    def to_dict(self) -> dict[str, Any]:
        """As JSON would have it."""
        return {**dataclasses.asdict(self), "kept_up": self.kept_up}


def measure(load: Load, record: Record, slo_ms: float | None = None) -> Report:
    """The report of a run."""
    counted = [one for one in record.sent if one.due_s >= load.warmup_s]
    ok = [one for one in counted if one.ok]
    done = sum(one.ok and load.warmup_s <= one.done_s < load.end_s for one in record.sent)
    good = None if slo_ms is None else sum(1e3 * one.latency_s <= slo_ms for one in ok)
    outcomes = Record(counted).outcomes()
    return Report(
        rate=load.rate,
        sent=len(counted),
        offered=len(counted) / load.duration_s,
        ok=len(ok),
        achieved=done / load.duration_s,
        outcomes=dict(sorted(outcomes.items())),
        error_samples=record.error_samples,
        latency_ms=_latencies([one for one in counted if one.ok or one.outcome == TIMEOUT]),
        slo_ms=slo_ms,
        good=good,
        goodput=None if good is None else good / load.duration_s,
        connection_limited=sum(one.connection_limited for one in counted),
        lag_p99_ms=percentile([1e3 * one.lag_s for one in counted], 0.99) if counted else 0.0,
        fingerprints=sorted(record.fingerprints),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def _latencies(counted: Sequence[Sent]) -> dict[str, float]:
    values = sorted(1e3 * one.latency_s for one in counted)
    if not values:
        return {}
    mean = math.fsum(values) / len(values)
    return {name: percentile(values, share) for name, share in SHARES.items()} | {"mean": mean}
