"""The mixed load: what kinds of requests arrive, how often, and what each looks like."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

from benchmarks.arrivals import Arrival
from benchmarks.workloads import Group, ids, ranking

Body = dict[str, object]

HOT_CONTEXTS = 8
"""Contexts of 256 tokens that requests share, but for workload R, whose context is its own."""

GREEDY_TOKENS = 16


class Mix:
    """Makes requests; no two are the same, unless they are greedy.

    Args:
        seed: the same one makes the same requests.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        contexts = random.Random(0)
        self._contexts = [ids(contexts, 256) for _ in range(HOT_CONTEXTS)]

    def kinds(self) -> dict[str, tuple[float, str, Callable[[], Body]]]:
        """By name: share of the arrivals, path, and what makes a body."""
        return {
            "score, 4 x 8 tokens": (0.50, "/v1/score", self._short_score),
            "score, R": (0.05, "/v1/score", self._ranking),
            "next token": (0.30, "/v1/next_token", self._next_token),
            "greedy, 16 tokens": (0.15, "/v1/decode", self._greedy),
        }

    def first_visits(self) -> list[Arrival]:
        """A request on each hot context, which leaves it in the cache."""
        bodies: list[Body] = [{"context": list(context)} for context in self._contexts]
        return [
            Arrival(0.0, "first visit", "/v1/next_token", json.dumps(body).encode())
            for body in bodies
        ]

    def arrivals(self, dues: Sequence[float]) -> list[Arrival]:
        """A request of a random kind for every due time."""
        kinds = self.kinds()
        weights = [share for share, _, _ in kinds.values()]
        names = self._rng.choices(list(kinds), weights, k=len(dues))
        return [self.arrival(name, due) for name, due in zip(names, dues, strict=True)]

    def arrival(self, kind: str, due_s: float) -> Arrival:
        """One request of a kind."""
        _, path, body = self.kinds()[kind]
        return Arrival(due_s, kind, path, json.dumps(body()).encode())

    def _hot(self) -> tuple[int, ...]:
        return self._rng.choice(self._contexts)

    def _short_score(self) -> Body:
        return _score(Group(self._hot(), tuple(ids(self._rng, 8) for _ in range(4))))

    def _ranking(self) -> Body:
        (group,) = ranking(seed=self._rng.getrandbits(32))
        return _score(group) | {"priority": "bulk"}

    def _next_token(self) -> Body:
        return {"context": [*self._hot(), *ids(self._rng, 8)]}

    def _greedy(self) -> Body:
        return {"context": list(self._hot()), "max_tokens": GREEDY_TOKENS, "ignore_eos": True}


def _score(group: Group) -> Body:
    return {"context": list(group.context), "candidates": [list(c) for c in group.candidates]}
