"""The token paths that both sides of a comparison are given. Fixed seeds, real vocabulary."""

from __future__ import annotations

import random
from dataclasses import dataclass

from model_runtime import LogprobQuery

VOCAB_SIZE = 49_152
"""Of the default model."""

BODY_GFLOP = 0.212
HEAD_GFLOP = 0.057
"""Work of the default model for a token that is fed, and for a row that goes through the head."""


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates behind one context, as token ids."""

    context: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]

    def queries(self, salt: str) -> list[LogprobQuery]:
        """One query a candidate; a salt of its own keeps a run from using another's cache."""
        start = len(self.context)
        return [LogprobQuery(self.context + c, start, cache_salt=salt) for c in self.candidates]

    @property
    def gflop(self) -> float:
        """Work of the least: each distinct token once, the last of a candidate never."""
        fed = len(self.context) + sum(len(c) - 1 for c in self.candidates)
        rows = 1 + sum(len(c) - 1 for c in self.candidates)
        return fed * BODY_GFLOP + rows * HEAD_GFLOP


def ids(rng: random.Random, length: int) -> tuple[int, ...]:
    """Random token ids, control tokens left out."""
    return tuple(rng.randrange(100, VOCAB_SIZE) for _ in range(length))


def ranking(context_tokens: int = 256, candidates: int = 32, seed: int = 1) -> list[Group]:
    """Workload R: one context, candidates of 12 to 20 tokens, 16 in the mean."""
    rng = random.Random(seed)
    lengths = [12 + i % 9 for i in range(candidates)]
    return [Group(ids(rng, context_tokens), tuple(ids(rng, n) for n in lengths))]


def independent(pairs: int = 32, seed: int = 2) -> list[Group]:
    """Workload I: pairs of 256 and 16 tokens that share nothing."""
    rng = random.Random(seed)
    return [Group(ids(rng, 256), (ids(rng, 16),)) for _ in range(pairs)]


def single_candidates(contexts: int, each: int, seed: int) -> list[Group]:
    """What many clients send: one distinct 16-token candidate each, on a few shared contexts."""
    rng = random.Random(seed)
    return [Group(ids(rng, 256), tuple(ids(rng, 16) for _ in range(each))) for _ in range(contexts)]
