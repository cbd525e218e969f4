"""The engine's figures under the names that vLLM gives them.

Routers, autoscalers and dashboards that were written for vLLM read these. A block of vLLM's KV
cache is a token of ours. Of its prefix cache, a query is a token that a request needed, and a hit
one that was computed already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.telemetry.collectors import kv_usage
from model_runtime import EngineStats, ModelInfo

_LABELS: Final = ("model_name", "engine")
_ENGINE: Final = "0"
_CACHE_LABELS: Final = ("block_size", "num_gpu_blocks", "enable_prefix_caching", *_LABELS)


class VllmCollector(Collector):
    """Reads ``EngineStats`` when it is scraped; says nothing until a model is loaded."""

    def __init__(
        self, stats: Callable[[], EngineStats], model: Callable[[], ModelInfo | None]
    ) -> None:
        self._stats = stats
        self._model = model

    def collect(self) -> Iterator[Metric]:
        info, stats = self._model(), self._stats()
        if info is None:
            return
        labels = (info.name, _ENGINE)
        for name, about, value in _gauges(stats):
            gauge = GaugeMetricFamily(f"vllm:{name}", about, labels=_LABELS)
            gauge.add_metric(labels, value)
            yield gauge
        for name, about, value in _counters(stats):
            counter = CounterMetricFamily(f"vllm:{name}", about, labels=_LABELS)
            counter.add_metric(labels, value)
            yield counter
        about = "The KV cache: a block is a token."
        cache = GaugeMetricFamily("vllm:cache_config_info", about, labels=_CACHE_LABELS)
        cache.add_metric(("1", str(stats.cache_slots), "True", *labels), 1)
        yield cache


def _gauges(stats: EngineStats) -> Iterator[tuple[str, str, float]]:
    yield "num_requests_waiting", "Requests that no forward has held.", stats.waiting_requests
    yield "num_requests_running", "Requests that a forward has held.", stats.running_requests
    about = "Part of the KV cache that the batch at hand needs, 0 to 1."
    yield "kv_cache_usage_perc", about, kv_usage(stats)
    yield "gpu_cache_usage_perc", about, kv_usage(stats)


def _counters(stats: EngineStats) -> Iterator[tuple[str, str, float]]:
    queries = stats.cached_tokens + stats.batch_tokens
    for prefix in ("", "gpu_"):
        yield f"{prefix}prefix_cache_queries", "Tokens that were needed.", queries
        yield f"{prefix}prefix_cache_hits", "Tokens that were cached.", stats.cached_tokens
