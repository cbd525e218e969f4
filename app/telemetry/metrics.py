"""Metrics: what the engine and the routes have done, for Prometheus.

Nothing is counted twice. The engine keeps its own counters and reports them in ``EngineStats``;
a collector reads them when somebody asks, as it reads those of the score cache and of the log.
Only what none of them can know, the HTTP requests, is counted here. No label takes a value that a
client can choose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from starlette.types import Scope

from app.telemetry.cache_stats import ScoreCacheStats
from app.telemetry.collectors import (
    EngineCollector,
    LogCollector,
    ModelCollector,
    ScoreCollector,
)
from app.telemetry.vllm_collector import VllmCollector
from model_runtime import EngineStats, ModelInfo

# Each counter would bring a second series with its birth time; nothing here is born later.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
UNKNOWN_ROUTE: Final = "unknown"

REJECTED: Final = frozenset({401, 408, 413, 429, 503, 504})
"""Statuses of requests that were refused for who sent them, for their size, or for want of room or
time; nothing is wrong with what they asked."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
_TOKENS: Final = (("computed_tokens", "computed"), ("cached_tokens", "cached"))


class Metrics:
    """The metrics of one app, in a registry of their own.

    Args:
        stats: the engine's.
        scores: those of the finished scores.
        model: what is served; None until it is loaded.
        dialect: whose names there are beside our own.

    Attributes:
        paths: of routes without parameters; what is refused before it is routed is counted under
            its path where it is one of them.
    """

    def __init__(
        self,
        stats: Callable[[], EngineStats],
        scores: Callable[[], ScoreCacheStats] = ScoreCacheStats,
        model: Callable[[], ModelInfo | None] = lambda: None,
        dialect: Literal["chainrule", "vllm"] = "chainrule",
    ) -> None:
        self.paths: frozenset[str] = frozenset()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(stats))
        self._registry.register(ModelCollector(model))
        self._registry.register(ScoreCollector(scores))
        self._registry.register(LogCollector())
        if dialect == "vllm":
            self._registry.register(VllmCollector(stats, model))
        ProcessCollector(registry=self._registry)
        self._count_requests()
        self._count_searches()

    def _count_requests(self) -> None:
        self._requests = self._counter(
            "chainrule_requests",
            "Requests answered; 499 means that the client left first.",
            ("method", "route", "status"),
        )
        self._seconds = Histogram(
            "chainrule_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ("route",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._tokens = self._counter(
            "chainrule_request_tokens",
            "Tokens that answered requests needed: computed for them, or found computed.",
            ("route", "kind"),
        )
        self._rows = self._counter(
            "chainrule_request_rows", "Tokens whose log-probs answers are made of.", ("route",)
        )
        self._rejections = self._counter(
            "chainrule_rejections",
            "Requests refused for who sent them, their size, or want of room or time, by code.",
            ("reason",),
        )

    def _count_searches(self) -> None:
        self._decodes = self._counter(
            "chainrule_decodes",
            "Decode requests that were read, by what they asked to run.",
            ("strategy", "stream"),
        )
        self._unproven = self._counter(
            "chainrule_unproven_decodes",
            "Exact searches whose budget ran out before the proof.",
        )

    def _counter(self, name: str, about: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, about, tuple(labels), registry=self._registry)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one finished request."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def observe_facts(self, route: str, facts: Mapping[str, object]) -> None:
        """Count what is known of a request's cost and of its searches."""
        for fact, kind in _TOKENS:
            if isinstance(tokens := facts.get(fact), int):
                self._tokens.labels(route, kind).inc(tokens)
        if isinstance(rows := facts.get("scored_tokens"), int):
            self._rows.labels(route).inc(rows)
        if "strategy" not in facts:
            return
        stream = "true" if facts.get("stream") else "false"
        self._decodes.labels(str(facts["strategy"]), stream).inc()
        if facts.get("optimal") is False:
            self._unproven.inc()

    def observe_error(self, status: int, code: str) -> None:
        """Count a request that was answered by an error, if it was a refusal.

        Args:
            status: of the answer.
            code: of the error object; one of a fixed set.
        """
        if status in REJECTED:
            self._rejections.labels(code).inc()

    def route_of(self, scope: Scope) -> str:
        """``route_template``, also of what was refused before it was routed."""
        route = route_template(scope)
        is_known = route == UNKNOWN_ROUTE and scope["path"] in self.paths
        return scope["path"] if is_known else route

    def render(self) -> bytes:
        """Everything, in Prometheus' text format. Reads files of /proc."""
        return generate_latest(self._registry)

    async def scrape(self) -> bytes:
        """``render`` on a thread of its own, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.render)


def route_template(scope: Scope) -> str:
    """The path as the route table spells it, parameters unfilled; one name for all unknown paths.

    FastAPI leaves the matched route in the scope. A plain route without parameters, as for
    /docs, leaves only its endpoint, and then the path itself is the template.
    """
    path = getattr(scope.get("route"), "path", None)
    if path is None and "endpoint" in scope and not scope.get("path_params"):
        path = scope["path"]
    return str(path) if path is not None else UNKNOWN_ROUTE
