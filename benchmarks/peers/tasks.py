"""The measured workloads as requests; every run has tokens of its own, so every cache is cold."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import workloads
from benchmarks.peers.protocol import BEAM, GREEDY, SCORE, Request
from benchmarks.workloads import BODY_GFLOP, HEAD_GFLOP, Group

PROMPT = 256


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the table.

    Attributes:
        name: as on the command line.
        request: what run number ``seed`` asks; no two runs share tokens.
        before: asked first, and not measured: it leaves something in the cache of who has one.
        gflop: least work of a request, given what ``before`` has left.
    """

    name: str
    request: Callable[[int], Request]
    gflop: float
    before: Callable[[int], Request] | None = None


def tasks(tiny: bool = False) -> list[Task]:
    """All of them; ``tiny`` ones only show that everything runs."""
    if tiny:
        return [
            *(_ranking(24, 3), _repeated(24, 3), _independent(2)),
            *(_greedy(1, 24, 4), _greedy(2, 24, 4), _beam(4, 24, 4)),
        ]
    return [
        *(_ranking(context, 32) for context in (200, 255, PROMPT, 300)),
        *(_repeated(PROMPT, 32), _independent(32)),
        *(_greedy(batch, PROMPT, 32) for batch in (1, 8, 32)),
        _beam(4, PROMPT, 32),
    ]


def _ranking(context: int, candidates: int) -> Task:
    def groups(seed: int) -> list[Group]:
        return workloads.ranking(context, candidates, seed=1000 * seed + context)

    return Task(f"R-{context}", lambda seed: _scoring(groups(seed)), _total(groups(0)))


def _repeated(context: int, candidates: int) -> Task:
    def group(seed: int, part: int) -> Group:
        (first,) = workloads.ranking(context, candidates, seed=1000 * seed + 1)
        (other,) = workloads.ranking(context, candidates, seed=1000 * seed + 2)
        return Group(first.context, (first, other)[part].candidates)

    return Task(
        "R-repeated",
        lambda seed: _scoring([group(seed, 1)]),
        group(0, 1).candidate_gflop,
        before=lambda seed: _scoring([group(seed, 0)]),
    )


def _independent(pairs: int) -> Task:
    def groups(seed: int) -> list[Group]:
        return workloads.independent(pairs, seed=1000 * seed + 3)

    return Task("I", lambda seed: _scoring(groups(seed)), _total(groups(0)))


def _greedy(batch: int, prompt_tokens: int, new_tokens: int) -> Task:
    def request(seed: int) -> Request:
        prompts = workloads.prompts(batch, prompt_tokens, seed=1000 * seed + 4)
        return Request(GREEDY, prompts=[list(p) for p in prompts], new_tokens=new_tokens)

    work = batch * new_tokens * (BODY_GFLOP + HEAD_GFLOP)
    return Task(f"greedy-{batch}", request, work)


def _beam(num_beams: int, prompt_tokens: int, new_tokens: int) -> Task:
    def request(seed: int) -> Request:
        prompt = list(workloads.ids(random.Random(1000 * seed + 5), prompt_tokens))
        return Request(BEAM, prompts=[prompt], new_tokens=new_tokens, num_beams=num_beams)

    steps = num_beams * (new_tokens - 1)
    work = prompt_tokens * BODY_GFLOP + HEAD_GFLOP + steps * (BODY_GFLOP + HEAD_GFLOP)
    return Task(f"beam-{num_beams}", request, work)


def _scoring(groups: Sequence[Group]) -> Request:
    return Request(
        SCORE, groups=[(list(g.context), [list(c) for c in g.candidates]) for g in groups]
    )


def _total(groups: Sequence[Group]) -> float:
    return sum(group.gflop for group in groups)
