"""Small steps in fixed shapes give the scores of the ordinary path, replayed or not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from model_runtime.attention.interface import ATTENTION_NAME, Decoded
from model_runtime.batching.batch import Batch, QueryProgress, results_from_output
from model_runtime.batching.planner import plan
from model_runtime.errors import NonFiniteLogits
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.runner.cuda_graphs import STEP_KEYS, STEP_ROWS, Bucket, Replay, bucket_of
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder
from tests.offline import Offline
from tests.tiny_models import TINY_KINDS, TINY_VOCAB, save_tiny_model, tiny_model

A_TOKEN = 1e-4
"""Largest difference between the two paths in float32, in nats a token."""

NOT_IN_GRAPHS = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.lift_fresh,
    torch.ops.aten.nonzero,
}
"""Values read back to Python or handed in from it, and shapes that follow from values."""


class Tape(TorchDispatchMode):
    """Records on CPU what a CUDA graph records: the calls of a step, with their addresses.

    A replay runs no line of Python of the step; it computes the same calls on the same tensors
    again. What a graph could not hold, a value read back or handed in, fails when recorded.

    Attributes:
        replays: how often each step has run, in the order of recording.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replays: list[int] = []
        self._calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func.overloadpacket in NOT_IN_GRAPHS:
            raise AssertionError(f"a CUDA graph cannot hold {func}")
        output = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, output))
        return output

    def __call__(self, step: Replay) -> Replay:
        number, self._calls = len(self.replays), []
        self.replays.append(0)
        with self:
            output = step()
        calls = self._calls

        def replay() -> Decoded:
            self.replays[number] += 1
            for func, args, kwargs, old in calls:
                new = func(*args, **kwargs)
                for before, after in zip(tree_leaves(old), tree_leaves(new), strict=True):
                    if isinstance(before, Tensor) and before.data_ptr() != after.data_ptr():
                        before.copy_(after)
            return output

        return replay


class InSteps(Offline):
    """Queries against a runner whose small batches run in fixed shapes."""

    def __init__(self, folder: Path, record: Tape, *, kv_bytes: int = 64 << 20) -> None:
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=ATTENTION_NAME)
        self.runner = ModelRunner(model.eval(), kv_bytes, record_steps=record)
        self.cache = PrefixCache(self.runner.slots)
        self.batches: list[Batch] = []


def random_path(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(TINY_VOCAB - 16) for _ in range(length))


def forked(rng: random.Random, longest: int) -> list[LogprobQuery]:
    """Candidates behind contexts of several lengths, some of them prefixes of others."""
    trunk = random_path(rng, longest)
    cuts = (1, 7, 63, 64, longest // 2, longest - 20)
    return [LogprobQuery(trunk[:cut] + random_path(rng, 6), cut, (3,), 2) for cut in cuts]


def check_close(got: Sequence[LogprobResult], want: Sequence[LogprobResult]) -> None:
    for one, other in zip(got, want, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=A_TOKEN)
        assert one.target_logprobs == pytest.approx(other.target_logprobs, abs=A_TOKEN)
        assert [t.id for t in one.top[0]] == [t.id for t in other.top[0]]


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_steps_score_as_the_ordinary_path_does(kind: str, tiny_folder: TinyFolder) -> None:
    """Chunks, forks, windows and caps in fixed shapes are within 1e-4 nats of the other path."""
    queries = forked(random.Random(kind), 110 if kind == "gpt2" else 300)
    want = Offline(tiny_folder(kind)).answer(queries)
    record = Tape()
    offline = InSteps(tiny_folder(kind), record)
    for budget in (24, 5):
        check_close(offline.answer(queries, budget), want)
    assert sum(record.replays) == len(offline.batches)
    assert max(record.replays) > 2, "no recording was replayed often enough to mean anything"


@pytest.mark.parametrize("window", [1, 64, 65, 200])
def test_windows_are_followed_across_blocks(window: int, tmp_path: Path) -> None:
    """A row sees its latest positions and no others, wherever the window ends."""
    folder = save_tiny_model("mistral", tmp_path, sliding_window=window)
    queries = forked(random.Random(window), 280)
    want = Offline(folder).answer(queries)
    check_close(InSteps(folder, Tape()).answer(queries, 16), want)


def test_a_large_batch_takes_the_ordinary_path(tiny_folder: TinyFolder) -> None:
    """A batch of more rows than a step may have is not padded to one, and its KV is shared."""
    record = Tape()
    offline = InSteps(tiny_folder("llama"), record)
    path = random_path(random.Random(2), STEP_ROWS + 40)
    (whole,) = offline.answer([LogprobQuery(path, 1)])
    assert record.replays == []
    (tail,) = offline.answer([LogprobQuery(path, len(path) - 8)], budget=40)
    assert sum(record.replays) == len(offline.batches) - 1 > 5
    assert tail.logprobs == pytest.approx(whole.logprobs[-8:], abs=A_TOKEN)


def test_padding_leaves_every_other_slot_alone(tiny_folder: TinyFolder) -> None:
    """A step writes the slots of its batch and no other, whatever its bucket is."""
    offline = InSteps(tiny_folder("qwen3"), Tape())
    offline.answer([LogprobQuery(random_path(random.Random(4), 40), 38)])
    storage = offline.runner._storage
    for keys in storage._keys:
        keys.nan_to_num_()  # what was never written may be anything
    before = [keys.clone() for keys in storage._keys]
    query = LogprobQuery(random_path(random.Random(5), 6), 6, targets=(1,))
    batch = plan([QueryProgress(query, 6)], offline.cache, 64)
    offline.runner.run(batch)
    others = [slot for slot in range(64) if slot not in batch.slots]
    assert bucket_of(batch) == Bucket(8, 64) and len(batch.slots) == 6
    for keys, old in zip(storage._keys, before, strict=True):
        assert keys[others].equal(old[others])
        assert not keys[list(batch.slots)].equal(old[list(batch.slots)])


def test_a_token_that_is_not_finite_fails_its_own_path_alone(tmp_path: Path) -> None:
    """In fixed shapes as elsewhere; the path beside it has the bits that it has alone."""
    model = tiny_model("llama", tie_word_embeddings=False)
    model.get_input_embeddings().weight.data[2] = torch.nan
    model.save_pretrained(tmp_path)
    trunk = tuple(range(3, 60))
    good = LogprobQuery(trunk, len(trunk), (), top_k=3)
    astray = LogprobQuery((*trunk[:50], 2, *trunk[50:]), 58, ())
    (want,) = InSteps(tmp_path, Tape()).answer([good])
    offline = InSteps(tmp_path, Tape())
    batch = plan([QueryProgress(astray, 58), QueryProgress(good, 57)], offline.cache, 128)
    output = offline.runner.run(batch)
    assert output.bad_slots == {batch.slots[batch.token_ids.index(2)]}
    failed, answer = results_from_output(batch, output)
    assert isinstance(failed, NonFiniteLogits)
    assert answer == want


def test_buckets_are_powers_of_two_that_hold_the_batch() -> None:
    """Rows and keys are rounded up, so that few shapes are recorded."""
    cache = PrefixCache(4000)
    for length in (1, 2, 3, 64, 65, 200, 300):
        batch = plan(
            [QueryProgress(LogprobQuery((5,) * length, length, targets=(1,)), length)], cache, 4096
        )
        bucket = bucket_of(batch)
        assert bucket.rows // 2 < len(batch.token_ids) <= bucket.rows
        assert bucket.keys == 64 or bucket.keys // 2 < length <= bucket.keys
        assert bucket.rows * bucket.keys <= STEP_KEYS or length > 200
