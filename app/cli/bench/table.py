"""The result of a load test, for people."""

from __future__ import annotations

from collections.abc import Sequence

from app.cli.bench.load import Load
from app.cli.bench.report import LATE_MS, SHARES, Report
from app.cli.tables import Cell, Page, quoted


def show(page: Page, title: str, load: Load, reports: Sequence[Report]) -> None:
    """A row for each rate, and in words what a row cannot say."""
    page.line(title, "bold")
    page.line(f"{load.duration_s:g} s each, {load.processes} processes, seed {load.seed}", "dim")
    page.line("latency in ms since a request was due; timeouts included", "dim")
    in_time = reports[0].slo_ms is not None
    heads = [">rate", ">sent", ">ok", ">answered/s", *(f">{name}" for name in SHARES)]
    page.table([*heads, *([">in time", ">goodput/s"] if in_time else [])], map(_row, reports))
    for report in reports:
        for text in warnings(load, report):
            page.line(f"at {report.rate:g}/s: {text}", "yellow")


def warnings(load: Load, report: Report) -> list[str]:
    """What a reader of the numbers has to know."""
    found = []
    failed = {name: count for name, count in report.outcomes.items() if not name.startswith("2")}
    for name, count in failed.items():
        sample = report.error_samples.get(name)
        found.append(f"{count} x {name}" + ("" if sample is None else f": {quoted(sample, 160)}"))
    if report.connection_limited:
        found.append(
            f"{report.connection_limited} requests waited because {load.connections} were on their "
            "way; "
            "their latency counts from when they were due. Raise --concurrency"
        )
    if not report.kept_up:
        found.append(
            f"the generator did not keep up: 1 % of the requests left {report.lag_p99_ms:.0f} ms "
            f"late or more (up to {LATE_MS:.0f} ms is fine). Raise --processes, or give it cores "
            "of its own"
        )
    if not report.of_one_model:
        found.append(
            f"models of {len(report.fingerprints)} fingerprints answered "
            f"({', '.join(map(quoted, report.fingerprints))}); the numbers are of none of them"
        )
    if not report.sent:
        found.append("no request was due in this time; lengthen --duration")
    return found


def _row(report: Report) -> list[Cell]:
    all_ok = report.ok == report.sent
    row: list[Cell] = [
        f"{report.rate:g}",
        str(report.sent),
        (str(report.ok), "" if all_ok else "red"),
        f"{report.achieved:.2f}",
        *(_ms(report.latency_ms.get(name)) for name in SHARES),
    ]
    if report.good is None or report.goodput is None:
        return row
    share = report.good / report.sent if report.sent else 0.0
    colour = "green" if share >= 0.99 else "yellow"
    return [*row, (f"{share:.1%}", colour), f"{report.goodput:.2f}"]


def _ms(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
