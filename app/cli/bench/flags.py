"""What ``chainrule bench`` takes, and the loads that it means."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.cli.bench.load import Load
from app.cli.bench.request_bodies import SHAPES
from app.cli.bench.workload import Workload
from app.cli.numbers import at_least
from app.cli.server_address import add_address_flags

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class BenchArgs:
    """The parsed arguments; each is documented at its flag."""

    url: str | None
    api_key: str | None = field(repr=False)
    header: Sequence[Header] = field(repr=False)
    shape: str
    path: str | None
    model: str | None
    body: Path | None
    context_tokens: int
    candidates: int
    candidate_tokens: int
    max_tokens: int
    contexts: int
    label_token_ids: tuple[int, ...]
    rate: tuple[float, ...]
    duration: float
    warmup: float
    processes: int
    concurrency: int
    timeout: float
    seed: int | None
    slo_ms: float | None
    save: Path | None
    json: bool


def loads(args: BenchArgs, url: str, headers: tuple[Header, ...], model: str | None) -> list[Load]:
    """One load for each rate, in ascending order.

    Raises:
        ValueError: the file of bodies cannot be used, or a header cannot be sent.
    """
    for name, value in headers:
        if not (f"{name}{value}".isascii() and f"{name}{value}".isprintable()):
            raise ValueError(f"--header: {name} holds what a header cannot hold")
    workload = Workload(
        context_tokens=args.context_tokens,
        candidates=args.candidates,
        candidate_tokens=args.candidate_tokens,
        max_tokens=args.max_tokens,
        contexts=args.contexts,
        model=model,
        label_token_ids=args.label_token_ids,
    )
    # What a former run has sent may be cached: only who asks for the same questions gets them.
    seed = random.randrange(1 << 31) if args.seed is None else args.seed
    path = args.path or SHAPES[args.shape].path
    bodies = () if args.body is None else _bodies(args.body)
    return [
        Load(
            url=f"{url}/{path.lstrip('/')}",
            headers=headers,
            shape=args.shape,
            workload=workload,
            bodies=bodies,
            rate=rate,
            warmup_s=args.warmup,
            duration_s=args.duration,
            processes=args.processes,
            connections=args.concurrency,
            timeout_s=args.timeout,
            seed=seed,
        )
        for rate in sorted(args.rate)
    ]


def add_bench_flags(parser: argparse.ArgumentParser) -> None:
    """Declare all of them."""
    _add_where(parser.add_argument_group("whom to ask"))
    _add_what(parser.add_argument_group("what is asked"))
    _add_load(parser.add_argument_group("the load"))
    _add_results(parser.add_argument_group("results"))


def _add_where(group: Any) -> None:
    add_address_flags(group)
    group.add_argument(
        "--header",
        action="append",
        type=_header,
        default=[],
        metavar="NAME:VALUE",
        help="sent with every request; repeat for more",
    )
    group.add_argument(
        "--shape", choices=sorted(SHAPES), default="score", help="which API is spoken [score]"
    )
    group.add_argument("--path", help="route, where it is another than the shape's own")
    group.add_argument("--model", help="the model's name [the first that the server lists]")


def _add_what(group: Any) -> None:
    group.add_argument(
        "--body",
        type=Path,
        metavar="FILE",
        help="JSON lines, each the body of a request, sent in turn over and over instead of "
        "made-up questions",
    )
    for name, default, least, about in (
        ("context-tokens", 200, 1, "tokens of a context or query, about"),
        ("candidates", 4, 1, "candidates, documents, items or questions of one request"),
        ("candidate-tokens", 8, 1, "tokens of each of them, about"),
        ("max-tokens", 16, 1, "tokens to generate"),
        ("contexts", 0, 0, "so many different contexts; 0 makes every one new"),
    ):
        _number(group, name, default, at_least(least, whole=True), about)
    group.add_argument(
        "--label-token-ids",
        type=_ids,
        default=(1, 2),
        metavar="N,N",
        help="ids of the labels, for the shapes that want them [1,2]",
    )


def _add_load(group: Any) -> None:
    group.add_argument(
        "--rate",
        type=_rates,
        default=(1.0,),
        metavar="R[,R...]",
        help="requests a second; several make a sweep, lowest first [1]",
    )
    above = at_least(0.0, itself=False)
    _number(group, "duration", 30.0, above, "seconds that count, at each rate")
    _number(group, "warmup", 5.0, at_least(0.0), "seconds at the same rate before them")
    _number(group, "processes", 2, at_least(1, whole=True), "that send")
    _number(
        group,
        "concurrency",
        256,
        at_least(1, whole=True),
        "requests on their way at most, over all processes; it is reported when that was too few",
    )
    _number(group, "timeout", 60.0, above, "seconds after which an answer is given up")
    group.add_argument(
        "--seed",
        type=at_least(0, whole=True),
        metavar="N",
        help="of arrival times and questions; by default another each time, so that no answer "
        "is cached from a former run",
    )


def _add_results(group: Any) -> None:
    group.add_argument(
        "--slo-ms",
        type=at_least(0.0, itself=False),
        metavar="MS",
        help="what is in time: goodput counts answers within so many milliseconds since they "
        "were due",
    )
    group.add_argument("--save", type=Path, metavar="FILE", help="write all numbers as JSON")
    group.add_argument("--json", action="store_true", help="print the reports as JSON")


def _number(
    group: Any, name: str, default: float, read: Callable[[str], float], about: str
) -> None:
    group.add_argument(
        f"--{name}", type=read, default=default, metavar="N", help=f"{about} [{default:g}]"
    )


def _rates(text: str) -> tuple[float, ...]:
    return tuple(map(at_least(0.0, itself=False), text.split(",")))


def _ids(text: str) -> tuple[int, ...]:
    return tuple(map(at_least(0, whole=True), text.split(",")))


def _header(text: str) -> Header:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("it is a name, a colon and a value")
    return name.strip(), value.strip()


def _bodies(path: Path) -> tuple[bytes, ...]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ValueError(f"--body: cannot read {path}: {error.strerror}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            found.append(_body(line, f"--body: line {number} of {path}"))
    if not found:
        raise ValueError(f"--body: {path} holds no line")
    return tuple(found)


def _body(line: bytes, place: str) -> bytes:
    try:
        json.loads(line)
    except ValueError:
        raise ValueError(f"{place} is not JSON") from None
    return line
