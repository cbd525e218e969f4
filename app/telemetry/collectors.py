"""What the engine, the score cache and the log count themselves, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app import version
from app.telemetry.cache_stats import ScoreCacheStats
from app.telemetry.logs import dropped_lines
from model_runtime import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS, EngineStats, ModelInfo

_GAUGES: Final = (
    ("ready", "ready", "Whether a real forward has passed and new work is admitted."),
    ("alive", "alive", "Whether the model thread has neither died nor been given up."),
    ("stalled_s", "stalled_seconds", "Seconds that the model has made no progress for, at least."),
    ("waiting_requests", "waiting_requests", "Requests of which no forward has held a part yet."),
    ("waiting_tokens", "waiting_tokens", "Tokens of those requests."),
    ("running_requests", "running_requests", "Requests that a forward has held, not finished."),
    ("queued_requests", "queued_requests", "Requests admitted and not finished."),
    ("queued_tokens", "queued_tokens", "Tokens that take room in the queue until they are done."),
    ("queued_seconds", "queued_seconds", "About how long all that waits or runs will take."),
    ("max_batch_tokens", "max_batch_tokens", "Tokens that a forward is fed at most."),
    ("cache_slots", "cache_slots", "Size of the KV cache in tokens."),
    ("cache_slots_used", "cache_slots_used", "Tokens that the KV cache holds now."),
    ("cache_slots_pinned", "cache_slots_pinned", "Tokens of it that the batch at hand needs."),
    ("cache_row_bytes", "cache_row_bytes", "Bytes of the answers kept with those tokens."),
    ("memory_limit_bytes", "memory_limit_bytes", "What the process may take; 0 if not known."),
)
_COUNTERS: Final = (
    ("batches", "batches", "Forwards run."),
    ("shared_batches", "shared_batches", "Forwards that held more than one request."),
    ("batch_tokens", "batch_tokens", "Tokens fed to forwards."),
    ("batch_requests", "batch_requests", "Requests held by forwards, summed over forwards."),
    ("cached_tokens", "cached_tokens", "Tokens needed and found computed already."),
    ("evicted_tokens", "evicted_tokens", "Cached tokens that made room for others."),
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
        about = "Part of the KV cache that the batch at hand needs; what is only kept is not in it."
        yield GaugeMetricFamily("chainrule_kv_usage_ratio", about, value=kv_usage(stats))
        for field, name, about in _COUNTERS:
            yield CounterMetricFamily(f"chainrule_{name}", about, value=getattr(stats, field))
        yield from _histograms(stats)


class ModelCollector(Collector):
    """Says what is served, once it is loaded."""

    def __init__(self, model: Callable[[], ModelInfo | None]) -> None:
        self._model = model

    def collect(self) -> Iterator[Metric]:
        info = self._model()
        family = InfoMetricFamily("chainrule_build", "What is served, and what computes it.")
        if info is not None:
            labels = {
                "version": version(),
                "model": info.name,
                "fingerprint": info.fingerprint,
                "architecture": info.architecture,
                "dtype": info.dtype,
                "device": info.device,
                "kernels": info.kernels,
            }
            family.add_metric((), labels)
        yield family


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


def kv_usage(stats: EngineStats) -> float:
    """Part of the KV cache that the batch at hand needs, 0 to 1."""
    return stats.cache_slots_pinned / stats.cache_slots if stats.cache_slots else 0.0


def _histograms(stats: EngineStats) -> Iterator[Metric]:
    yield _histogram(
        "batch_size_tokens",
        "Forwards, by the tokens that they were fed.",
        BATCH_SIZE_BOUNDS,
        stats.batch_size_counts,
        stats.batch_tokens,
    )
    yield _histogram(
        "batch_seconds",
        "Forwards, by their seconds.",
        SECONDS_BOUNDS,
        stats.batch_seconds_counts,
        stats.busy_s,
    )
    yield _histogram(
        "request_queue_seconds",
        "Requests to the engine, by the seconds from their admission to their first forward.",
        SECONDS_BOUNDS,
        stats.queue_seconds_counts,
        stats.queue_s,
    )


def _histogram(
    name: str, about: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> Metric:
    edges = (*map(str, bounds), "+Inf")
    buckets = list(zip(edges, map(float, accumulate(counts)), strict=True))
    return HistogramMetricFamily(f"chainrule_{name}", about, buckets=buckets, sum_value=total)
