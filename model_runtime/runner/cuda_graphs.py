"""Small steps in fixed shapes, recorded once and replayed.

A decode step of a small model launches some hundred kernels that each take less time than their
launch. A CUDA graph launches them all at once, but only for the shapes and addresses that it was
recorded with. So a step is padded to a bucket of (rows, keys), and its input is copied to where
the bucket's graph reads it::

    batch of 5 rows, the longest path 300 tokens
    bucket (8, 512)    5 rows of the batch, the last one 3 times more; each with its own path
                       in 512 places, the rest of them slot 0
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from model_runtime.attention.interface import Decoded
from model_runtime.attention.path_attention import Kernel
from model_runtime.attention.step_attention import StepAttention, StepRows
from model_runtime.batching.batch import Batch
from model_runtime.kv_cache.storage import KVStorage

T = TypeVar("T")

STEP_ROWS = 256
"""Rows of a step at most; more keep a device busy without a graph."""

STEP_KEYS = 65_536
"""Keys that all rows of a step gather at most, shared ones counted for each."""

LEAST_KEYS = 64

Decode = Callable[[Tensor, Tensor, StepAttention], Decoded]
"""(token_ids [1, R], positions [1, R], attention) -> R final hidden states."""

Replay = Callable[[], Decoded]
"""Computes a step from what its input holds now; the result is good until the next replay."""

Record = Callable[[Replay], Replay]
"""Makes a replay out of a step, which may call it; ``GraphRecorder`` on CUDA."""


class GraphRecorder:
    """Records steps as CUDA graphs, all of them in one pool of memory.

    They may share it, since a replay's result is used before the next one starts.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Replay) -> Replay:
        with torch.cuda.device(self._device):
            self._warm_up(step)
            graph = torch.cuda.CUDAGraph()
            # another thread's calls are no part of this, and must not fail for it
            with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                output = step()

        def replay() -> Decoded:
            graph.replay()
            return output

        return replay

    def _warm_up(self, step: Replay) -> None:
        """A call outside the graph: libraries set themselves up at their first use."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The shape that a step is padded to."""

    rows: int
    keys: int


def bucket_of(batch: Batch) -> Bucket:
    """The smallest bucket that holds a batch: powers of two."""
    longest = max(batch.positions) + 1
    return Bucket(_power_of_two(len(batch.token_ids)), max(LEAST_KEYS, _power_of_two(longest)))


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


class StepGraphs:
    """Runs batches of few rows, each bucket through one recording.

    Args:
        decode: the decoder, which may be called with any attention.
        storage: keys and values; its tensors stay where they are.
        kernel: attends.
        record: how a bucket's first step becomes a replay.
    """

    def __init__(self, decode: Decode, storage: KVStorage, kernel: Kernel, record: Record) -> None:
        self._decode = decode
        self._storage = storage
        self._kernel = kernel
        self._record = record
        self._steps: dict[Bucket, tuple[Tensor, Replay]] = {}

    def takes(self, batch: Batch) -> bool:
        """Whether a batch is small enough."""
        bucket = bucket_of(batch)
        return bucket.rows <= STEP_ROWS and bucket.rows * bucket.keys <= STEP_KEYS

    def run(self, batch: Batch) -> Decoded:
        """N final hidden states; good until the next call."""
        bucket = bucket_of(batch)
        values = torch.frombuffer(_flat_input(batch, bucket), dtype=torch.int64)
        if bucket not in self._steps:
            inputs = values.to(self._storage.device, copy=True)
            self._steps[bucket] = inputs, self._record(self._step(inputs, bucket))
        inputs, replay = self._steps[bucket]
        inputs.copy_(values)
        hidden, bad = replay()
        count = len(batch.token_ids)
        return Decoded(hidden[:count], None if bad is None else bad[:count])

    def _step(self, inputs: Tensor, bucket: Bucket) -> Replay:
        """One forward over whatever ``inputs`` holds."""
        count = bucket.rows
        token_ids, positions, slots = inputs[: 3 * count].view(3, count)
        rows = StepRows(token_ids, positions, slots, keys=inputs[3 * count :])

        def step() -> Decoded:
            # made anew, so that a recording holds the making of its masks as well
            attention = StepAttention(rows, self._storage, self._kernel)
            return self._decode(token_ids.unsqueeze(0), positions.unsqueeze(0), attention)

        return step


def _flat_input(batch: Batch, bucket: Bucket) -> array[int]:
    """Everything that a step reads, one part after the other: see ``StepRows``.

    Padding repeats the last row, so it writes what that row writes, where that row writes it.
    """
    paths = _paths(batch)
    keys = [path + (0,) * (bucket.keys - len(path)) for path in paths]
    flat = array("q")
    for part in (batch.token_ids, batch.positions, batch.slots):
        flat.extend(_filled(part, bucket.rows))
    for path in _filled(keys, bucket.rows):
        flat.extend(path)
    return flat


def _filled(rows: Sequence[T], count: int) -> list[T]:
    return [*rows, *[rows[-1]] * (count - len(rows))]


def _paths(batch: Batch) -> list[tuple[int, ...]]:
    """The slots of each row's path, up to its own."""
    behind = {row: span.slots for span in batch.far for part in span.rows for row in part}
    paths: dict[int, tuple[int, ...]] = {}
    for span in batch.near:
        for row in (row for part in span.rows for row in part):
            near = span.slots[: batch.positions[row] - span.start + 1]
            paths[row] = behind.get(row, ()) + near
    return [paths[row] for row in range(len(batch.token_ids))]
