"""One model, offline: whether paths get in a crowd the bits that they get alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from model_runtime.types import LogprobQuery, LogprobResult
from tests.offline import Offline
from tests.tiny_models import TINY_VOCAB

SLOTS = 8000
"""Enough for all that is kept; every slot is checked after every batch."""


def ask_all(tokens: tuple[int, ...], score_from: int, salt: str = "") -> LogprobQuery:
    """Every fact of every row, the one behind the path included."""
    return LogprobQuery(tokens, score_from, (0, 5), 3, True, salt, temperatures=(0.5, 2.0))


def crowded(rng: random.Random, longest: int, count: int = 14) -> list[LogprobQuery]:
    """Candidates behind a few contexts that share prefixes, at lengths on and off blocks."""
    trunk = tuple(rng.randrange(TINY_VOCAB) for _ in range(longest))
    queries = []
    for _ in range(count):
        cut = min(rng.choice([1, 5, 127, 128, 129, 200, 256, 300]), longest - 40)
        tail = tuple(rng.randrange(TINY_VOCAB) for _ in range(rng.randint(1, 30)))
        queries.append(ask_all(trunk[:cut] + tail, rng.choice([cut, max(1, cut - 3)])))
    return queries


def alone(
    folder: Path, queries: Sequence[LogprobQuery], dtype: torch.dtype = torch.float32
) -> list[LogprobResult]:
    """Each query by itself in a part of the cache of its own, in one whole batch."""
    offline = Offline(folder, slots=SLOTS, dtype=dtype)
    return [
        offline.answer([replace(query, cache_salt=f"alone {number}")])[0]
        for number, query in enumerate(queries)
    ]


def changed_by_crowd(
    folder: Path,
    queries: Sequence[LogprobQuery],
    rng: random.Random,
    dtype: torch.dtype = torch.float32,
) -> list[str]:
    """Queries whose bits are others merged, reordered, chunked, cached or after evictions."""
    want = alone(folder, queries, dtype)
    changed, merged = [], 0
    for budget, slots in ((4096, SLOTS), (53, SLOTS), (9, 400), (4096, 400)):
        offline = Offline(folder, slots=slots, dtype=dtype)
        for visit in ("new", "cached"):
            order = rng.sample(range(len(queries)), len(queries))
            got = offline.answer([queries[i] for i in order], budget)
            changed += [
                f"query {i}, {visit}, batches of {budget}, {slots} slots"
                for i, answer in zip(order, got, strict=True)
                if answer != want[i]
            ]
        merged += sum(len(batch.query_slices) > 1 for batch in offline.batches)
    if merged < 20:
        raise ValueError("too few batches held several queries for this to mean anything")
    return changed
