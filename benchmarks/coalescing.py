"""`make bench`: 64 HTTP clients with one candidate each, against the same work offline."""

from __future__ import annotations

import asyncio
import json

from benchmarks.server_process import closed_loop, metrics, running_server
from benchmarks.timing import median
from benchmarks.workloads import Group, single_candidates
from model_runtime import Engine, EngineConfig

ALIAS = "smollm2-135m-instruct"
CLIENTS, CONTEXTS, EACH = 64, 8, 64


def bodies(groups: list[Group]) -> list[bytes]:
    """A request a candidate, the contexts taking turns."""
    pairs = [(g.context, g.candidates[i]) for i in range(EACH) for g in groups]
    return [
        json.dumps({"context": list(context), "candidates": [list(candidate)]}).encode()
        for context, candidate in pairs
    ]


class Offline:
    """The engine without HTTP, given everything at once."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.engine = Engine.load(EngineConfig(model=ALIAS))
        self.loop.run_until_complete(self.engine.start())

    def seconds(self, groups: list[Group], salt: str) -> float:
        queries = [query for group in groups for query in group.queries(salt)]
        began = self.loop.time()
        self.loop.run_until_complete(self.engine.score(queries))
        return self.loop.time() - began

    def close(self) -> None:
        self.loop.run_until_complete(self.engine.stop(1.0))
        self.loop.close()


def run(runs: int) -> None:
    """Alternate both sides ``runs`` times, the cache cold for each, and print the table."""
    offline, apart, served = Offline(), [], []
    offline.seconds(single_candidates(1, 4, seed=0), "warm-up")
    with running_server() as port:
        before = metrics(port)
        for number in range(1, runs + 1):
            groups = single_candidates(CONTEXTS, EACH, seed=number)
            apart.append(offline.seconds(groups, f"run-{number}"))
            served.append(closed_loop(port, "/v1/score", bodies(groups), CLIENTS))
        seen = {name: value - before[name] for name, value in metrics(port).items()}
    offline.close()
    count = CONTEXTS * EACH
    one, other = count / median(apart), count / median(served)
    batches, shared = seen["chainrule_batches_total"], seen["chainrule_shared_batches_total"]
    held = seen["chainrule_batch_requests_total"] / batches
    print(f"\n{CLIENTS} HTTP clients, {count} single candidates of 16 tokens a run, on {CONTEXTS}")
    print(f"contexts of 256; candidates a second, medians of {runs} alternating cold runs\n")
    print("| offline | over HTTP | ratio | batches | of several requests | requests in a batch |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| {one:.1f} | {other:.1f} | {other / one:.0%} | {batches:.0f} | {shared:.0f} ", end="")
    print(f"| {held:.1f} |", flush=True)
