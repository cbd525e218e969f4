"""``chainrule bench``: a server under load that does not wait for it.

Requests arrive at random at a given rate, whether or not earlier ones have been answered, as
those of many independent users do. A generator that waits for answers would go easy on a server
exactly when it is slow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from app.cli.bench.flags import BenchArgs, add_bench_flags, loads
from app.cli.bench.load import Load
from app.cli.bench.report import Report, measure
from app.cli.bench.table import show
from app.cli.bench.workers import WorkerDied, run_load
from app.cli.failure import fail
from app.cli.server_address import ServerAddress
from app.cli.tables import Page

FIND_S = 10.0
"""Seconds in which a server says what it serves."""


class ServerUnreachable(Exception):
    """The server cannot be reached. The message is one line."""


def add_arguments(parser: Any) -> None:
    """Give the parser what the command takes."""
    add_bench_flags(parser)
    parser.set_defaults(command=bench_command)


def bench_command(given: dict[str, Any]) -> int:
    """``chainrule bench``: 0 where at least one request of every run was answered, and all by one
    model."""
    args = BenchArgs(**given)
    try:
        _check_file(args.save)
        found = ServerAddress.find(args.url, args.api_key)
        planned = loads(args, found.url, _headers(args, found), _model(args, found))
        reports = [_run(load, args) for load in planned]
    except ValueError as error:
        return fail(error, 2)
    except (WorkerDied, ServerUnreachable) as error:
        return fail(error, 1)
    _print(args, planned[0], reports)
    if args.save is not None:
        text = json.dumps(_document(planned[0], reports), indent=2, allow_nan=False)
        args.save.write_text(f"{text}\n", "utf-8")
    return 0 if all(report.ok and report.of_one_model for report in reports) else 1


def _check_file(path: Path | None) -> None:
    """Raise what would otherwise be raised when the load has been made."""
    try:
        if path is not None:
            path.open("ab").close()
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from None


def _headers(args: BenchArgs, found: ServerAddress) -> tuple[tuple[str, str], ...]:
    key = () if found.key is None else (("Authorization", f"Bearer {found.key}"),)
    return (*key, *args.header)


def _model(args: BenchArgs, found: ServerAddress) -> str | None:
    """The model's name: as given, else the first that the server lists, if it lists any."""
    if args.model is not None or args.body is not None:
        return args.model
    try:
        response = httpx.get(
            f"{found.url}/v1/models",
            headers=dict(_headers(args, found)),
            timeout=FIND_S,
            trust_env=False,
        )
        return str(response.json()["data"][0]["id"]) if response.is_success else None
    except httpx.TransportError as error:
        raise ServerUnreachable(f"nobody answers at {found.url}: {error}") from None
    except (ValueError, LookupError, TypeError):
        return None


def _run(load: Load, args: BenchArgs) -> Report:
    seconds = f"{load.warmup_s:g} + {load.duration_s:g} s"
    sys.stderr.write(f"chainrule: {load.rate:g} requests/s for {seconds} ...\n")
    return measure(load, run_load(load), args.slo_ms)


def _title(args: BenchArgs, load: Load) -> str:
    return f"{args.shape if args.body is None else args.body.name} at {load.url}"


def _document(load: Load, reports: Sequence[Report]) -> dict[str, Any]:
    """The load and what came of it, without what is secret: headers stay out."""
    asked = {
        name: getattr(load, name)
        for name in (
            *("url", "shape", "warmup_s", "duration_s", "processes", "connections"),
            *("timeout_s", "seed"),
        )
    }
    workload = {name: getattr(load.workload, name) for name in load.workload.__slots__}
    made = {"bodies": len(load.bodies)} if load.bodies else {"workload": workload}
    return {"load": asked | made, "runs": [report.to_dict() for report in reports]}


def _print(args: BenchArgs, load: Load, reports: Sequence[Report]) -> None:
    page = Page()
    if args.json:
        page.line(json.dumps([report.to_dict() for report in reports], allow_nan=False))
    else:
        show(page, _title(args, load), load, reports)
    page.write()
