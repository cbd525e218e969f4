"""`make bench`: 64 HTTP clients with one candidate each, against the same work offline.

The clients are raw: a keep-alive connection a thread, no client library, no cache of scores,
and no candidate is sent twice.
"""

from __future__ import annotations

import json
from functools import partial

from benchmarks.agreement import check_same
from benchmarks.in_process import InProcess
from benchmarks.server_process import closed_loop, metrics, request, running_server
from benchmarks.table import Table
from benchmarks.timing import median, seconds_of
from benchmarks.workloads import Group, single_candidates

CLIENTS, CONTEXTS, EACH = 64, 8, 64


def bodies(groups: list[Group]) -> list[bytes]:
    """A request a candidate, the contexts taking turns."""
    each = len(groups[0].candidates)
    pairs = [(group.context, group.candidates[i]) for i in range(each) for group in groups]
    return [
        json.dumps({"context": list(context), "candidates": [list(candidate)]}).encode()
        for context, candidate in pairs
    ]


def check_answers(port: int, ours: InProcess) -> None:
    """A few candidates have the same bits over HTTP and offline."""
    groups = single_candidates(1, 4, seed=0)
    answers = [json.loads(request(port, "POST", "/v1/score", b)[1]) for b in bodies(groups)]
    served = [answer["results"][0]["logprob"] for answer in answers]
    check_same("the sums of candidates", served, ours.sums(groups))


def run(runs: int) -> None:
    """Alternate both sides ``runs`` times, the cache cold for each, and print the table."""
    apart, served = [], []
    with InProcess() as ours, running_server() as port:
        check_answers(port, ours)
        before = metrics(port)
        for number in range(1, runs + 1):
            groups = single_candidates(CONTEXTS, EACH, seed=number)
            apart.append(seconds_of(partial(ours.sums, groups)))
            served.append(closed_loop(port, "/v1/score", bodies(groups), CLIENTS))
        seen = {name: value - before[name] for name, value in metrics(port).items()}
    count = CONTEXTS * EACH
    one, other = count / median(apart), count / median(served)
    batches, shared = seen["chainrule_batches_total"], seen["chainrule_shared_batches_total"]
    held = seen["chainrule_batch_requests_total"] / batches
    Table(
        f"{CLIENTS} HTTP clients, {count} single candidates of 16 tokens a run on {CONTEXTS} "
        f"contexts of 256; candidates a second, medians of {runs} alternating cold runs",
        *("offline", "over HTTP", "ratio"),
        *("batches", "of several requests", "requests in a batch"),
    ).row(
        *(f"{one:.1f}", f"{other:.1f}", f"{other / one:.0%}"),
        *(f"{batches:.0f}", f"{shared:.0f}", f"{held:.1f}"),
    )
