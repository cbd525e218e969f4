"""What a forward takes, predicted before it runs: from above, and not by much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.batching.batch import QueryProgress
from model_runtime.batching.planner import plan
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.memory.estimate import ModelShape, batch_bytes, largest_batch_bytes
from model_runtime.native.library import available
from model_runtime.types import LogprobQuery
from tests.tiny_models import TINY_KINDS, tiny_config

ROOT = Path(__file__).parents[3]
LARGEST_FACTOR = 4.0
"""Of prediction over measurement, which misses what a forward finds free in the heap already.

Beyond it batches would be made small for nothing.
"""

SHAPE = ModelShape(
    layers=2, hidden=64, intermediate=128, heads=4, kv_heads=2, head_dim=16, vocab=384
)


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks cannot be measured here"
)
@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_no_forward_takes_more_than_was_predicted(kernels: str) -> None:
    """Prompts, scored texts and candidates, each in a process that has run nothing like it.

    The native kernels take less than torch's, which the prediction is made for.
    """
    if kernels == "native" and not available():
        pytest.skip("the native kernels were not built")
    program = subprocess.run(
        [sys.executable, "-m", "tests.model_runtime.memory.peak_memory", kernels, "llama", "gpt2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in program.stdout.splitlines()]
    assert len(lines) == 6, program.stderr
    for line in lines:
        assert line["measured"] <= line["predicted"], line
        if kernels == "torch":
            assert line["predicted"] <= LARGEST_FACTOR * line["measured"], line


@given(
    contexts=st.lists(st.integers(1, 200), min_size=1, max_size=3),
    candidates=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    budget=st.integers(1, 300),
    capped=st.booleans(),
    window=st.sampled_from([0, 16, 512]),
    tiles=st.sampled_from([(8, False), (32, False), (24, True)]),
)
def test_no_batch_is_larger_than_the_largest(
    contexts: list[int],
    candidates: list[int],
    budget: int,
    capped: bool,
    window: int,
    tiles: tuple[int, bool],
) -> None:
    """What is checked at the start bounds whatever the planner makes of any work later."""
    shape = ModelShape(**{**_fields(SHAPE), "capped": capped, "window": window})
    shape = replace(shape, row_step=tiles[0], apart=tiles[1])
    queries = [
        LogprobQuery((context,) * context + tuple(range(length)), context)
        for context in contexts
        for length in candidates
    ]
    batch = plan([QueryProgress(q, q.score_from) for q in queries], PrefixCache(5000), budget)
    assert batch_bytes(shape, batch) <= largest_batch_bytes(shape, budget, path=220)


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_every_config_has_a_shape(kind: str) -> None:
    """Sizes are found whatever a config calls them."""
    shape = ModelShape.of(tiny_config(kind).get_text_config(), vocab=384)
    assert all(
        size > 0
        for name, size in _fields(shape).items()
        if name not in ("capped", "window", "apart")
    )
    assert shape.heads % shape.kv_heads == 0


def _fields(shape: ModelShape) -> dict[str, int]:
    return {name: getattr(shape, name) for name in shape.__dataclass_fields__}
