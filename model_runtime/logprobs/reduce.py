"""From hidden states to log-probabilities, tile by tile, always over the whole vocabulary.

    logprob(id) = logit[id] - log(sum over the vocabulary of exp(logit))

Only the rows that are asked for come here, and a tile of logits is dropped before the next
one is made: no [tokens, vocab] tensor exists. Reductions are row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from model_runtime.batching.batch import AskedChoice, AskedPartition, AskedSet, Batch, BatchOutput
from model_runtime.logprobs.log_partition import log_partitions_of_rows
from model_runtime.logprobs.set_mass import set_logprobs_of_rows
from model_runtime.logprobs.tile import ReducedTile, ReduceTile, reduce_with_torch
from model_runtime.logprobs.top_k import choices_of_rows, top_of_rows, top_of_tile
from model_runtime.types import RankedLogprob, TokenLogprob

T = TypeVar("T")

MANY = 32
"""Ids asked of one row from which on sorting it costs less than comparing it with each."""

Head = Callable[[Tensor], Tensor]
"""[M, hidden] hidden states -> [M, vocab] logits."""

_TILE_BYTES = 12 << 20
"""Bytes of float32 logits in a tile: small enough to stay near the cores."""

_TILE_BYTES_ON_DEVICE = 256 << 20
"""The same where every tile costs a wait for the device."""

NATIVE_TILE_BYTES = 36 << 20
"""The same for native kernels, which read a row once: the head's weights are read less often."""


TOP_WITH_SUMS = 64
"""Most probable tokens that are found together with the sums; more of them are looked for apart."""


def reduce_head_rows(
    hidden: Tensor,
    head: Head,
    batch: Batch,
    vocab_size: int,
    reduce_tile: ReduceTile = reduce_with_torch,
    height: int | None = None,
) -> BatchOutput:
    """Everything that ``batch`` asks of its head rows.

    Args:
        hidden: [H, hidden_size] final hidden states of the head rows, in their order.
        head: the output projection.
        vocab_size: columns of the head; they bound a tile.
        reduce_tile: what computes sums over rows.
        height: rows of a tile; by default what suits torch's kernels.
    """
    reduction = _Reduction(batch, reduce_tile)
    height = height or tile_height(vocab_size, hidden.device)
    for first, stop in _tiles(hidden.shape[0], height):
        reduction.add_tile(first, stop, head(hidden[first:stop]).float())
    return reduction.output()


def tile_height(vocab_size: int, device: torch.device) -> int:
    """Rows of a tile."""
    return rows_of(_TILE_BYTES if device.type == "cpu" else _TILE_BYTES_ON_DEVICE, vocab_size)


def rows_of(tile_bytes: int, vocab_size: int) -> int:
    """Rows of a tile of so many bytes of logits, at least 8."""
    return max(8, tile_bytes // (4 * vocab_size) // 8 * 8)


def _tiles(rows: int, height: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, height):
        yield first, min(first + height, rows)


class _Reduction:
    """Collects the answers of one batch over its tiles."""

    def __init__(self, batch: Batch, reduce_tile: ReduceTile) -> None:
        self._batch = batch
        self._reduce_tile = reduce_tile
        self._gathers = _gathers_by_head(batch)
        self._logprobs = [0.0] * len(batch.gather_ids)
        self._ranks = [0] * len(batch.gather_ids)
        self._top: dict[int, tuple[TokenLogprob, ...]] = {}
        self._entropies: dict[int, float] = {}
        self._bad: set[int] = set()
        self._asked = _by_head(batch.choices)
        self._choices: dict[AskedChoice, Sequence[RankedLogprob]] = {}
        self._asked_sets = _by_head(batch.token_sets)
        self._set_logprobs: dict[AskedSet, float] = {}
        self._temperatures = _by_head(batch.partitions)
        self._log_partitions: dict[AskedPartition, float] = {}
        self._logit_heads = batch.logit_heads
        self._log_sums: dict[int, float] = {}

    def add_tile(self, first: int, stop: int, logits: Tensor) -> None:
        """Reduce the logits of head rows ``first .. stop - 1``: [at least stop - first, vocab]."""
        heads = range(first, stop)
        few = [self._gathers[head] if len(self._gathers[head]) < MANY else [] for head in heads]
        asked = [[self._batch.gather_ids[g] for g in gathers] for gathers in few]
        summaries = any(self._batch.summaries[first:stop])
        reduced = self._reduce_tile(
            logits, asked, min(self._top_wanted(heads), logits.shape[1]), summaries
        )
        finite = reduced.log_sum.isfinite().tolist()
        self._bad.update(head for head in heads if not finite[head - first])
        found = zip(reduced.logprobs, reduced.ranks, strict=True)
        for g, (logprob, rank) in zip(chain.from_iterable(few), found, strict=True):
            self._logprobs[g], self._ranks[g] = logprob, rank
        for head in heads:
            if len(self._gathers[head]) >= MANY:
                row = head - first
                self._gather_many(self._gathers[head], logits[row], reduced.log_sum[row])
        sound = [head for head in heads if finite[head - first]]
        self._list(sound, first, logits, reduced)
        for head in self._logit_heads.intersection(sound):
            self._log_sums[head] = float(reduced.log_sum[head - first])
        if reduced.entropies is not None:
            entropies = reduced.entropies.tolist()
            self._entropies.update(zip(heads, entropies, strict=False))

    def output(self) -> BatchOutput:
        return BatchOutput(
            logprobs=self._logprobs,
            ranks=self._ranks,
            top=self._top,
            entropies=self._entropies,
            bad_rows=frozenset(self._bad),
            choices=self._choices,
            set_logprobs=self._set_logprobs,
            log_partitions=self._log_partitions,
            log_sums=self._log_sums,
        )

    def _top_wanted(self, heads: range) -> int:
        """How many of the most probable tokens some row wants of all, where they are few."""
        of_rows = self._batch.top_k[heads.start : heads.stop]
        chosen = [c for head in heads for c in self._asked.get(head, ()) if c.allowed is None]
        wanted = max((*of_rows, *(choice.count for choice in chosen)), default=0)
        return wanted if wanted <= TOP_WITH_SUMS else 0

    def _gather_many(self, gathers: Sequence[int], logits: Tensor, log_sum: Tensor) -> None:
        """Of one row, [vocab]: what is greater than each id is found in the row sorted once."""
        ids = torch.tensor([self._batch.gather_ids[g] for g in gathers], device=logits.device)
        chosen = logits[ids]
        behind = torch.searchsorted(logits.sort().values, chosen, right=True)
        found = zip((chosen - log_sum).tolist(), (len(logits) - behind).tolist(), strict=True)
        for g, (logprob, greater) in zip(gathers, found, strict=True):
            self._logprobs[g], self._ranks[g] = logprob, 1 + greater

    def _list(self, heads: Sequence[int], first: int, logits: Tensor, reduced: ReducedTile) -> None:
        """The top k, the choices, sums over sets and log-partitions, where they are asked."""
        batch, log_sum = self._batch, reduced.log_sum
        top_tokens = partial(top_of_tile, logits, reduced)
        counts = [(h - first, batch.top_k[h]) for h in heads if batch.top_k[h]]
        for row, top in top_of_rows(logits, log_sum, counts, top_tokens):
            self._top[first + row] = top
        asked = [(h - first, choice) for h in heads for choice in self._asked.get(h, ())]
        for (row, choice), tokens in choices_of_rows(logits, log_sum, asked, top_tokens):
            self._choices[AskedChoice(first + row, choice)] = tokens
        sums = [(h - first, tokens) for h in heads for tokens in self._asked_sets.get(h, ())]
        for (row, among), logprob in set_logprobs_of_rows(logits, log_sum, sums):
            self._set_logprobs[AskedSet(first + row, among)] = logprob
        tempered = [(h - first, t) for h in heads for t in self._temperatures.get(h, ())]
        for (row, t), log_partition in log_partitions_of_rows(logits, log_sum, tempered):
            self._log_partitions[AskedPartition(first + row, t)] = log_partition


def _by_head(asked: Iterable[tuple[int, T]]) -> dict[int, list[T]]:
    by_head: dict[int, list[T]] = {}
    for head, wanted in asked:
        by_head.setdefault(head, []).append(wanted)
    return by_head


def _gathers_by_head(batch: Batch) -> list[list[int]]:
    gathers: list[list[int]] = [[] for _ in batch.head_rows]
    for g, head in enumerate(batch.gather_head):
        gathers[head].append(g)
    return gathers
