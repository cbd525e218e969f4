"""What the dashboard shows: rows of panels, and each panel's queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REPLICAS = 'job=~"$job", instance=~"$instance"'
ASKED = f'{REPLICAS}, route!~"/health.*|/metrics"'
"""Of requests: those that are no probes and no scrapes."""

Kind = Literal["timeseries", "stat", "heatmap", "table"]


@dataclass(frozen=True)
class Query:
    """An expression, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        unit: as Grafana names it.
        about: what to make of it.
        limits: of a number: from where on it is orange, and red.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    about: str = ""
    kind: Kind = "timeseries"
    width: int = 12
    height: int = 8
    stacked: bool = False
    limits: tuple[float, ...] = ()


def panel(title: str, unit: str, *queries: tuple[str, str], **more: object) -> Panel:
    """A panel of queries with their legends."""
    return Panel(title, unit, tuple(Query(*query) for query in queries), **more)  # type: ignore[arg-type]


def number(title: str, unit: str, expr: str, about: str, *limits: float) -> Panel:
    """A panel that shows one number."""
    return Panel(title, unit, (Query(expr),), about, "stat", 4, 4, limits=limits)


def rate(counter: str, where: str = REPLICAS) -> str:
    """A counter's rise a second."""
    return f"rate(chainrule_{counter}{{{where}}}[$__rate_interval])"


def gauge(name: str) -> str:
    """A gauge as it is."""
    return f"chainrule_{name}{{{REPLICAS}}}"


def quantile(share: float, histogram: str, by: str = "", where: str = REPLICAS) -> str:
    """A quantile of a histogram, over the replicas or by one of its labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(f'{histogram}_bucket', where)}))"


def quantiles(histogram: str, where: str = REPLICAS) -> list[tuple[str, str]]:
    """The quantiles that are usual."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return [(quantile(share, histogram, where=where), name) for name, share in shares.items()]


FAILED = (
    f"""(sum({rate("requests_total", f'{ASKED}, status=~"5.."')}) or vector(0))"""
    f" / sum({rate('requests_total', ASKED)})"
)
HITS = "sum{by} ({cached}) / (sum{by} ({cached}) + sum{by} ({computed}))"
_HITS = {"cached": rate("cached_tokens_total"), "computed": rate("batch_tokens_total")}
HITS_OF_ALL = HITS.format(by="", **_HITS)
HITS_BY_REPLICA = HITS.format(by=" by (instance)", **_HITS)
OCCUPANCY = (
    f"{rate('batch_tokens_total')} / {rate('batches_total')}"
    f" / on (job, instance) {gauge('max_batch_tokens')}"
)
SIZES = f"increase(chainrule_batch_size_tokens_bucket{{{REPLICAS}}}[$__rate_interval])"
ABOUT_REPLICA = "job, instance, version, model, fingerprint, architecture, dtype, device, kernels"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Overview": (
        number("Replicas ready", "short", f"sum({gauge('ready')})", "That take requests now."),
        number(
            "Requests",
            "reqps",
            f"sum({rate('requests_total', ASKED)})",
            "Answered a second, whatever the answer was; without probes and scrapes.",
        ),
        number("Failed", "percentunit", FAILED, "Requests answered with 5xx.", 0.001, 0.01),
        number(
            "p99",
            "s",
            quantile(0.99, "request_seconds", where=ASKED),
            "99 of 100 requests were answered within so long.",
        ),
        number(
            "Queued",
            "s",
            f"max({gauge('queued_seconds')})",
            "Seconds of work that the busiest replica has in line.",
            *(2, 10),
        ),
        number("Prefix hits", "percentunit", HITS_OF_ALL, "Tokens found computed already."),
    ),
    "Traffic": (
        panel(
            *("Requests by route", "reqps"),
            (f"sum by (route) ({rate('requests_total', ASKED)})", "{{route}}"),
            stacked=True,
        ),
        panel(
            *("Requests by status", "reqps"),
            (f"sum by (status) ({rate('requests_total', ASKED)})", "{{status}}"),
            about="499: the client left before it was answered.",
            stacked=True,
        ),
        panel(
            *("Tokens by route", "short"),
            (f"sum by (route, kind) ({rate('request_tokens_total')})", "{{route}} {{kind}}"),
            about="A second: computed for the requests of a route, or found in the cache.",
            stacked=True,
        ),
        panel(
            *("Rows by route", "short"),
            (f"sum by (route) ({rate('request_rows_total')})", "{{route}}"),
            about="A second: tokens whose log-probabilities answers are made of.",
            stacked=True,
        ),
    ),
    "Latency": (
        *(
            panel(
                *(f"{name} by route", "s"),
                (quantile(share, "request_seconds", "route", ASKED), "{{route}}"),
                width=8,
            )
            for name, share in {"p50": 0.5, "p95": 0.95, "p99": 0.99}.items()
        ),
        panel(
            *("Time in the queue", "s"),
            *quantiles("request_queue_seconds"),
            about="From admission to the first forward that held a part of the request.",
        ),
        panel(
            *("p99 of the time in the queue by replica", "s"),
            (quantile(0.99, "request_queue_seconds", "instance"), "{{instance}}"),
        ),
    ),
    "Queue": (
        panel(
            *("Requests", "short"),
            (f"sum({gauge('waiting_requests')})", "waiting"),
            (f"sum({gauge('running_requests')})", "running"),
            about="Waiting: no forward has held a part of the request yet.",
            stacked=True,
        ),
        panel(
            *("Tokens", "short"),
            (f"sum({gauge('queued_tokens')})", "queued"),
            (f"sum({gauge('waiting_tokens')})", "of requests that wait"),
        ),
        panel(
            *("Seconds of work by replica", "s"),
            (gauge("queued_seconds"), "{{instance}}"),
            about="Queued tokens over measured throughput; scale on it and on busy time.",
        ),
        panel(
            *("Requests waiting by replica", "short"),
            (gauge("waiting_requests"), "{{instance}}"),
            about="Uneven while others are idle: the router sends too much to one of them.",
        ),
    ),
    "Batches": (
        panel(
            *("Tokens in a forward", "short"),
            (f"sum by (le) ({SIZES})", "{{le}}"),
            about="How many forwards were of which size.",
            kind="heatmap",
        ),
        panel(
            *("Occupancy", "percentunit"),
            (OCCUPANCY, "{{instance}}"),
            about="The fill of the mean forward, of CHAINRULE_MAX_BATCH_TOKENS.",
        ),
        panel(
            *("Busy", "percentunit"),
            (rate("busy_seconds_total"), "{{instance}}"),
            about="The share of the time in which a forward ran.",
        ),
        panel(*("Time of a forward", "s"), *quantiles("batch_seconds")),
        panel(
            *("Requests in a forward", "short"),
            (f"{rate('batch_requests_total')} / {rate('batches_total')}", "{{instance}}"),
        ),
        panel(
            *("Throughput", "short"),
            (f"sum({rate('batch_tokens_total')})", "tokens a second"),
            (f"sum({rate('head_rows_total')})", "rows through the head a second"),
        ),
    ),
    "Cache": (
        panel(*("Prefix hits", "percentunit"), (HITS_BY_REPLICA, "{{instance}}")),
        panel(
            *("Fill of the KV cache", "percentunit"),
            (f"{gauge('cache_slots_used')} / {gauge('cache_slots')}", "{{instance}} filled"),
            (gauge("kv_usage_ratio"), "{{instance}} needed by the forward"),
            about="A full cache is what it should be; one that the forward needs is not.",
        ),
        panel(
            *("Tokens found and evicted", "short"),
            (f"sum({rate('cached_tokens_total')})", "found a second"),
            (f"sum({rate('evicted_tokens_total')})", "evicted a second"),
            about="More evicted than found, and falling hits: the contexts do not fit.",
        ),
        panel(
            *("Finished scores", "short"),
            (f"sum({rate('score_cache_hits_total')})", "from the score cache, a second"),
            (f"sum({rate('shared_scores_total')})", "shared with one in flight, a second"),
            (f"sum({rate('score_cache_misses_total')})", "not known, a second"),
        ),
    ),
    "Memory": (
        panel(
            *("Resident, of what a replica may have", "percentunit"),
            (
                f"process_resident_memory_bytes{{{REPLICAS}}}"
                f" / on (job, instance) ({gauge('memory_limit_bytes')} > 0)",
                "{{instance}}",
            ),
        ),
        panel(
            *("Memory", "bytes"),
            (f"process_resident_memory_bytes{{{REPLICAS}}}", "{{instance}} resident"),
            (gauge("cache_row_bytes"), "{{instance}} answers kept with the KV cache"),
            (gauge("score_cache_bytes"), "{{instance}} score cache"),
        ),
        panel(
            *("Open files", "short"),
            (f"process_open_fds{{{REPLICAS}}}", "{{instance}}"),
            about="Connections above all.",
        ),
    ),
    "Errors": (
        panel(
            *("Rejections by reason", "reqps"),
            (f"sum by (reason) ({rate('rejections_total')})", "{{reason}}"),
            about="The reason is the code of the error that was answered.",
            stacked=True,
        ),
        panel(
            *("Failures by route", "reqps"),
            (
                f"""sum by (route, status) ({rate("requests_total", f'{ASKED}, status=~"5.."')})""",
                "{{route}} {{status}}",
            ),
            stacked=True,
        ),
        panel(
            *("No progress for", "s"),
            (gauge("stalled_seconds"), "{{instance}}"),
            about="The watchdog ends the process at CHAINRULE_WATCHDOG_TIMEOUT_S.",
        ),
        panel(
            *("What should not happen", "short"),
            *(
                (f"sum(increase(chainrule_{name}_total{{{REPLICAS}}}[$__rate_interval]))", legend)
                for name, legend in {
                    "non_finite_logits": "queries without usable probabilities",
                    "dropped_log_lines": "log lines dropped",
                    "unproven_decodes": "exact searches without a proof",
                }.items()
            ),
        ),
    ),
    "Replicas": (
        panel(
            *("Replicas", "short"),
            (f"max by ({ABOUT_REPLICA}) ({gauge('build_info')})", ""),
            (f"max by (job, instance) ({gauge('ready')})", ""),
            (
                f"max by (job, instance) (time() - process_start_time_seconds{{{REPLICAS}}})",
                "",
            ),
            about="Replicas of one model should have one fingerprint: then their answers are"
            " equal bit for bit.",
            kind="table",
            width=24,
        ),
    ),
}
