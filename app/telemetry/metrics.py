"""Metrics: what the engine and the routes have done, for Prometheus.

Nothing is counted twice. The engine keeps its own counters and reports them in ``EngineStats``;
a collector reads them when somebody asks, as it reads those of the score cache and of the log.
Only what none of them can know, the HTTP requests, is counted here. No label takes a value that a
client can choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from app.telemetry.cache_stats import ScoreCacheStats
from app.telemetry.logs import dropped_lines
from model_runtime import EngineStats

# Each counter would bring a second series with its birth time; nothing here is born later.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
UNKNOWN_ROUTE: Final = "unknown"

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip

_GAUGES: Final = (
    ("ready", "ready", "Whether a real forward has passed and new work is admitted."),
    ("alive", "alive", "Whether the model thread has neither died nor been given up."),
    ("stalled_s", "stalled_seconds", "Seconds that the model has made no progress for, at least."),
    ("queued_requests", "queued_requests", "Requests admitted and not finished."),
    ("queued_tokens", "queued_tokens", "Tokens of the requests admitted and not finished."),
    ("running_requests", "running_requests", "Requests with work in the current forward."),
    ("cache_slots", "cache_slots", "Size of the KV cache in tokens."),
    ("cache_slots_used", "cache_slots_used", "Tokens that the KV cache holds now."),
    ("cache_row_bytes", "cache_row_bytes", "Bytes of the answers kept with those tokens."),
)
_COUNTERS: Final = (
    ("batches", "batches", "Forwards run."),
    ("shared_batches", "shared_batches", "Forwards that held more than one request."),
    ("batch_tokens", "batch_tokens", "Tokens fed to forwards."),
    ("batch_requests", "batch_requests", "Requests held by forwards, summed over forwards."),
    ("cached_tokens", "cached_tokens", "Tokens needed and found computed already."),
    ("head_rows", "head_rows", "Rows that went through the head."),
    ("non_finite_logits", "non_finite_logits", "Queries that got no usable probabilities."),
    ("busy_s", "busy_seconds", "Seconds spent in forwards."),
)
_SCORE_COUNTERS: Final = (
    ("hits", "score_cache_hits", "Queries that the score cache answered."),
    ("misses", "score_cache_misses", "Queries that the score cache did not know."),
    ("shared", "shared_scores", "Queries that waited for an identical one in flight."),
)


class EngineCollector(Collector):
    """Reads ``EngineStats`` when it is scraped."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        for field, name, about in _GAUGES:
            yield GaugeMetricFamily(f"chainrule_{name}", about, value=getattr(stats, field))
        for field, name, about in _COUNTERS:
            yield CounterMetricFamily(f"chainrule_{name}", about, value=getattr(stats, field))


class ScoreCollector(Collector):
    """Reads ``ScoreCacheStats`` when it is scraped."""

    def __init__(self, stats: Callable[[], ScoreCacheStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        about = "Memory that the score cache holds."
        yield GaugeMetricFamily("chainrule_score_cache_bytes", about, value=stats.bytes)
        for field, name, about in _SCORE_COUNTERS:
            yield CounterMetricFamily(f"chainrule_{name}", about, value=getattr(stats, field))


class LogCollector(Collector):
    """Reads how many log lines were dropped when it is scraped."""

    def collect(self) -> Iterator[Metric]:
        about = "Log lines that were dropped, as nobody read them in time."
        yield CounterMetricFamily("chainrule_dropped_log_lines", about, value=dropped_lines())


class Metrics:
    """The metrics of one app, in a registry of their own.

    Args:
        stats: the engine's.
        scores: those of the finished scores.
    """

    def __init__(
        self,
        stats: Callable[[], EngineStats],
        scores: Callable[[], ScoreCacheStats] = ScoreCacheStats,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(stats))
        self._registry.register(ScoreCollector(scores))
        self._registry.register(LogCollector())
        self._requests = Counter(
            "chainrule_requests",
            "Requests answered; 499 means that the client left first.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "chainrule_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ("route",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._decodes = Counter(
            "chainrule_decodes",
            "Decode requests that were read, by what they asked to run.",
            ("strategy", "stream"),
            registry=self._registry,
        )
        self._unproven = Counter(
            "chainrule_unproven_decodes",
            "Exact searches whose budget ran out before the proof.",
            registry=self._registry,
        )

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one finished request."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def observe_facts(self, facts: Mapping[str, object]) -> None:
        """Count what is known of a request's searches."""
        if "strategy" not in facts:
            return
        stream = "true" if facts.get("stream") else "false"
        self._decodes.labels(str(facts["strategy"]), stream).inc()
        if facts.get("optimal") is False:
            self._unproven.inc()

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


def route_template(scope: Scope) -> str:
    """The path as the route table spells it, parameters unfilled; one name for all unknown paths.

    FastAPI leaves the matched route in the scope. A plain route without parameters, as for
    /docs, leaves only its endpoint, and then the path itself is the template.
    """
    path = getattr(scope.get("route"), "path", None)
    if path is None and "endpoint" in scope and not scope.get("path_params"):
        path = scope["path"]
    return str(path) if path is not None else UNKNOWN_ROUTE
