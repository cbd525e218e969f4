"""Key spans in the shapes of a kernel: set by a row's own position, whatever else is there."""

from __future__ import annotations

import random

import pytest
import torch

from model_runtime.attention.span_groups import UNSEEN, SpanGroup, group_spans
from model_runtime.batching.batch import Batch, QueryProgress
from model_runtime.batching.block_sizes import BLOCK_SIZE, KEY_STEP
from model_runtime.batching.planner import plan
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.types import LogprobQuery

CPU = torch.device("cpu")


def planned(rng: random.Random, paths: int) -> Batch:
    """Paths that leave a trunk at places on and off blocks."""
    trunk = [rng.randrange(50) for _ in range(400)]
    queries = []
    for _ in range(paths):
        cut = rng.choice([1, 31, 32, 63, 64, 65, 127, 128, 200, 256, 321])
        tail = [rng.randrange(50) for _ in range(rng.randint(1, 90))]
        queries.append(LogprobQuery((*trunk[:cut], *tail), cut))
    return plan(
        [QueryProgress(query, query.score_from) for query in queries], PrefixCache(9_000), 9_000
    )


def indices(index: slice | torch.Tensor) -> list[int]:
    return list(range(index.start, index.stop)) if isinstance(index, slice) else index.tolist()


def seen_keys(
    spans: list[SpanGroup], positions: list[int], group: int
) -> dict[int, list[tuple[bool, int, list[int]]]]:
    """Folded row -> (is_suffix, keys of the product, slots that its mask leaves), a span each."""
    seen: dict[int, list[tuple[bool, int, list[int]]]] = {}
    for each in spans:
        slots = torch.tensor(indices(each.slots)).view(each.count, each.keys)
        rows = indices(each.rows)
        for place, target in zip(indices(each.real), indices(each.target), strict=True):
            assert rows[place] == target
            span, row = divmod(place, each.height)
            kept = slots[span]
            if each.mask is not None:
                kept = kept[each.mask[span, 0, row] == 0]
            seen.setdefault(target, []).append((each.is_suffix, each.keys, kept.tolist()))
    return seen


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("window", [None, 5, 64, 100, 200])
def test_every_row_sees_its_own_keys_once(group: int, window: int | None) -> None:
    """Both spans together are the path of the row, or the end of it that the window leaves."""
    rng = random.Random(f"{group}{window}")
    batch = planned(rng, 12)
    storage = {slot: row for row, slot in enumerate(batch.slots)}
    seen = seen_keys(group_spans(batch, group, window, CPU), list(batch.positions), group)
    assert sorted(seen) == list(range(len(batch.token_ids) * group))
    for folded, spans in seen.items():
        position = batch.positions[folded // group]
        slots = [slot for is_suffix, _, kept in sorted(spans) for slot in kept]
        places = [batch.positions[storage[slot]] for slot in slots]
        first = 0 if window is None else max(0, position - window + 1)
        assert sorted(places) == list(range(first, position + 1))
        assert [is_suffix for is_suffix, _, _ in spans] in ([True], [True, False])


@pytest.mark.parametrize("window", [None, 100])
def test_the_shapes_follow_from_the_position_alone(window: int | None) -> None:
    """A row's products have the same number of keys alone, in a crowd and beside any path."""
    shapes: dict[int, set[tuple[tuple[bool, int], ...]]] = {}
    for seed in range(12):
        rng = random.Random(seed)
        batch = planned(rng, rng.choice([1, 2, 9]))
        seen = seen_keys(group_spans(batch, 2, window, CPU), list(batch.positions), 2)
        for folded, spans in seen.items():
            shape = tuple((is_suffix, keys) for is_suffix, keys, kept in spans if is_suffix or kept)
            shapes.setdefault(batch.positions[folded // 2], set()).add(shape)
    assert len(shapes) > 300
    assert all(len(variants) == 1 for variants in shapes.values())


def test_heights_are_multiples_of_eight_and_keys_of_a_step() -> None:
    """What a kernel's bits were found to be indifferent to is kept by every group."""
    unseen = torch.tensor(UNSEEN)
    for each in group_spans(planned(random.Random(1), 9), 3, None, CPU):
        assert each.height % 8 == 0 and each.keys % KEY_STEP == 0
        assert (each.mask is not None) == each.is_suffix
        assert each.mask is None or bool(((each.mask == 0) | (each.mask == unseen)).all())
        assert each.is_suffix or each.keys % BLOCK_SIZE == 0


def test_candidates_behind_one_context_share_its_far_span() -> None:
    """The keys of a shared context are read once for all rows behind it, and in place."""
    context = tuple(range(256))
    work = [QueryProgress(LogprobQuery((*context, 300 + i, 400 + i), 256), 256) for i in range(20)]
    cache = PrefixCache(2_000)
    spans = group_spans(plan(work, cache, 4_096), 1, None, CPU)
    shared = [each for each in spans if not each.is_suffix and each.keys == 192]
    assert [each.count for each in shared] == [1]
    assert isinstance(shared[0].slots, slice) and isinstance(shared[0].rows, slice)
