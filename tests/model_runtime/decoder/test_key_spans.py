"""Where the keys of a batch's rows lie, against the paths that were planned."""

from __future__ import annotations

import random

from model_runtime.batching.batch import QueryProgress
from model_runtime.batching.planner import plan
from model_runtime.decoder.key_spans import key_spans
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.types import LogprobQuery


def test_every_row_sees_its_own_path_in_order() -> None:
    """Paths that fork, some behind a cached prefix: prefix and suffix together are the path."""
    rng = random.Random(0)
    shared = tuple(rng.randrange(50) for _ in range(200))
    paths = [
        shared[:cut] + tuple(rng.randrange(50) for _ in range(30)) for cut in (5, 64, 130, 200)
    ]
    cache = PrefixCache(2000)
    for part in (paths[:2], paths):
        batch = plan([QueryProgress(LogprobQuery(p, 1, ()), 1) for p in part], cache, 4096)
        slots, spans = key_spans(batch)
        seen = {}
        for row, (near, near_count, far, far_count) in enumerate(spans.tolist()):
            path = slots[far : far + far_count].tolist() + slots[near : near + near_count].tolist()
            assert len(path) == batch.positions[row] + 1
            assert path[-1] == batch.slots[row]
            seen[batch.slots[row]] = path
        for query_slice in batch.query_slices:
            end = seen[batch.slots[query_slice.end_row]]
            assert end[: len(query_slice.kept_slots)] == list(query_slice.kept_slots)
        cache.commit(batch)
