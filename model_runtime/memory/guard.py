"""Batches that fit the memory that is free, where taking too much would end the process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from model_runtime.batching.batch import Batch
from model_runtime.errors import ModelLoadError, OutOfMemory
from model_runtime.kv_cache.logprob_rows import row_budget
from model_runtime.memory.available import AvailableMemory
from model_runtime.memory.estimate import ModelShape, batch_bytes, largest_batch_bytes
from model_runtime.scheduling.oom_backoff import SMALLEST_BUDGET

READINGS = ((16, 1.0), (2, 0.1))
"""So many times a batch may have been free so many seconds ago; with less a new reading is made.

A reading takes half a millisecond, which a lone decode step would pay each time.
"""


RETRY_AFTER_S = 5.0
"""The ``Retry-After`` where other processes have the memory: when they free it is not known."""


class MemoryGuard:
    """Limits batches to what fits the memory that is free.

    Pages of the KV storage that nothing was written to yet count for the batch that writes to them
    first. What an earlier batch has freed may stay with the process, and then it is there again.

    Args:
        shape: the model's.
        memory: what this process may take. Its weights are loaded already.
        clock: monotonic seconds.

    Attributes:
        shape: may be replaced by what the laid out model turns out to need.
        kept_bytes: tells what this process keeps beside weights and storage, and a batch cannot
            have; may be replaced.
    """

    def __init__(
        self,
        shape: ModelShape,
        memory: AvailableMemory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shape = shape
        self.kept_bytes: Callable[[], int] = lambda: 0
        self._memory = memory
        self._clock = clock
        self._resident = memory.resident()
        self._slots_written = 0
        self._largest = 0
        self._free = 0
        self._read_at = float("-inf")

    def check_start(self, kv_cache_bytes: int, max_batch_tokens: int, longest_path: int) -> None:
        """Whether keys, values, kept rows and the largest batch fit beside the weights.

        Raises:
            ModelLoadError: they do not; names the settings to lower.
        """
        batch = largest_batch_bytes(self.shape, max_batch_tokens, longest_path)
        free, total = self._memory.free(), self._memory.total
        kept = kv_cache_bytes + row_budget(kv_cache_bytes)
        if free is None or total is None or kept + batch <= free:
            return
        raise ModelLoadError(
            f"beside the weights {_shown(free)} of {_shown(total)} are free, but kv_cache_bytes is "
            f"{_shown(kept)} with the rows kept beside it and a batch of max_batch_tokens="
            f"{max_batch_tokens} may take {_shown(batch)}; lower kv_cache_bytes or max_batch_tokens"
        )

    def fit(self, plan: Callable[[int], Batch], budget: int) -> Batch:
        """A batch of at most ``budget`` tokens that fits.

        Raises:
            OutOfMemory: the smallest batch does not. It is worth another try where the batch would
                fit if other processes had nothing.
        """
        batch = plan(budget)
        while (needed := self._needed(batch)) > (free := self._room(needed)):
            tokens = len(batch.token_ids)
            if tokens <= SMALLEST_BUDGET:
                raise OutOfMemory(
                    f"{tokens} tokens may take {_shown(needed)}, and {_shown(free)} are free",
                    RETRY_AFTER_S if needed <= self._most() else None,
                )
            smaller = min(tokens // 2, tokens * free // needed)
            batch = plan(max(SMALLEST_BUDGET, smaller))
        self._largest = max(self._largest, needed)
        self._slots_written = max(self._slots_written, 1 + max(batch.slots, default=0))
        return batch

    def _needed(self, batch: Batch) -> int:
        fresh = max(0, 1 + max(batch.slots, default=0) - self._slots_written)
        return batch_bytes(self.shape, batch) + fresh * self.shape.kv_bytes

    def _room(self, needed: int) -> int:
        """Bytes for a batch: what is free, and what earlier ones have left with the process."""
        now = self._clock()
        age = now - self._read_at
        if not any(times * needed <= self._free and age <= good_s for times, good_s in READINGS):
            self._free, self._read_at = self._read(), now
        return self._free

    def _most(self) -> int:
        """Bytes for a batch while no other process has any."""
        total = self._memory.total
        return sys.maxsize if total is None else total - self._resident - self._kept

    @property
    def _kept(self) -> int:
        return self._slots_written * self.shape.kv_bytes + self.kept_bytes()

    def _read(self) -> int:
        free = self._memory.free()
        if free is None:
            return sys.maxsize
        left_behind = self._memory.resident() - self._resident - self._kept
        return free + min(max(0, left_behind), self._largest)


def _shown(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"
