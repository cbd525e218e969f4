"""`make bench`: a hundred thousand candidates in one request, and whether the server minds.

python -m benchmarks.large_request
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence

from benchmarks import catalogue
from benchmarks.memory import MIB, forget_peak, peak_resident, resident
from benchmarks.server_process import request, running_process
from benchmarks.table import Table
from benchmarks.timing import percentile

CANDIDATES = 100_000
TOP = 10
CONTEXT_CHARS = 1_000
POLL_S = 0.02


class HealthPoll(threading.Thread):
    """Asks /health/live all the while; ``seconds`` are what the answers took."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._over = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        while not self._over.wait(POLL_S):
            began = time.perf_counter()
            status, _ = request(self._port, "GET", "/health/live")
            self.seconds.append(time.perf_counter() - began)
            if status != 200:
                raise SystemExit(f"health answered {status}")

    def end(self) -> Sequence[float]:
        """Stop; the seconds of every answer."""
        self._over.set()
        self.join()
        return self.seconds


def body(names: Sequence[str]) -> bytes:
    """The request for the best of them, in columns, behind a context of some length."""
    filler = "We sell clothes, shoes, and things for house, garden and travel. "
    context = (filler * CONTEXT_CHARS)[: CONTEXT_CHARS - len(catalogue.RELATED)]
    asked = {"context": context + catalogue.RELATED, "candidates": names, "top_n": TOP}
    return json.dumps({**asked, "compact": True, "timeout_ms": 3_600_000}).encode()


def run(_runs: int) -> None:
    """Print the table; of one run, since it takes minutes."""
    names = catalogue.names(CANDIDATES)
    sent = body(names)
    with running_process() as (port, process):
        request(port, "POST", "/v1/score", body(names[:10]))
        before = resident(process)
        forget_peak(process)
        poll = HealthPoll(port)
        poll.start()
        began = time.perf_counter()
        status, content = request(port, "POST", "/v1/score", sent)
        seconds = time.perf_counter() - began
        health = poll.end()
        grown = peak_resident(process) - before
    if status != 200:
        raise SystemExit(f"the server answered {status}: {content[:300]!r}")
    report(json.loads(content), len(sent), len(content), seconds, grown, health)


def report(
    answer: dict[str, object],
    sent: int,
    received: int,
    seconds: float,
    grown: int,
    health: Sequence[float],
) -> None:
    """Print what one request took."""
    table = Table(
        f"The {TOP} best of {CANDIDATES:,} names behind {CONTEXT_CHARS} characters, one request",
        *("body, MB", "answer, MB", "seconds", "of them tokenizing and planning"),
        *("tokens fed", "memory at most, MiB more", "health, median and worst ms"),
    )
    timings, usage = answer["timings_ms"], answer["usage"]
    if not isinstance(timings, dict) or not isinstance(usage, dict):
        raise SystemExit("the answer is no answer")
    table.row(
        *(f"{sent / 1e6:.1f}", f"{received / 1e6:.1f}", f"{seconds:.1f}"),
        f"{timings['tokenize'] / 1e3:.1f}",
        f"{usage['computed_tokens']:,}",
        f"{grown / MIB:.0f}",
        f"{1e3 * percentile(health, 0.5):.1f}, {1e3 * max(health):.0f}",
    )


if __name__ == "__main__":
    run(1)
