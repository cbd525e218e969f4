"""The token paths that both sides of a comparison are given. Fixed seeds, real vocabulary."""

from __future__ import annotations

import random
from dataclasses import dataclass

from model_runtime import LogprobQuery

ALIAS = "smollm2-135m-instruct"
"""The default model, which the figures below are of."""

VOCAB_SIZE = 49_152

BODY_GFLOP = 0.212
HEAD_GFLOP = 0.057
"""Products of a token that is fed, and of a row that goes through the head."""

KEY_GFLOP = 4 * 576 * 30 / 1e9
"""Of one row with one key and its value, in all layers. Small unless paths are long."""


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

    @property
    def attention_gflop(self) -> float:
        """Work of the least in attention: each fed token with itself and all before it."""
        start = len(self.context)
        keys = _triangle(start) + sum(
            _triangle(start + len(c) - 1) - _triangle(start) for c in self.candidates
        )
        return keys * KEY_GFLOP

    @property
    def candidate_gflop(self) -> float:
        """What is left of ``gflop`` where the context is cached, but for its last token."""
        return self.gflop - (len(self.context) - 1) * BODY_GFLOP

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """The whole paths."""
        return [self.context + c for c in self.candidates]


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


def ids(rng: random.Random, length: int, vocab_size: int = VOCAB_SIZE) -> tuple[int, ...]:
    """Random token ids, control tokens left out."""
    return tuple(rng.randrange(100, vocab_size) for _ in range(length))


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


def long_context(vocab_size: int = VOCAB_SIZE, seed: int = 5) -> Group:
    """4,096 tokens, and 100 candidates of 16."""
    rng = random.Random(seed)
    return Group(ids(rng, 4096, vocab_size), tuple(ids(rng, 16, vocab_size) for _ in range(100)))


def shared_prefixes(groups: int, each: int, shared: int, own: int, seed: int) -> list[Group]:
    """Groups of prompts that begin alike: ``shared`` tokens, then ``own`` of each prompt."""
    rng = random.Random(seed)
    return [
        Group(ids(rng, shared), tuple(ids(rng, own) for _ in range(each))) for _ in range(groups)
    ]


def prompts(count: int, tokens: int = 256, seed: int = 6) -> list[tuple[int, ...]]:
    """What is continued: random tokens, nothing shared."""
    rng = random.Random(seed)
    return [ids(rng, tokens) for _ in range(count)]
