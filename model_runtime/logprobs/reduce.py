"""From hidden states to log-probabilities, tile by tile, always over the whole vocabulary.

    logprob(id) = logit[id] - log(sum over the vocabulary of exp(logit))

Only the rows that are asked for come here, and a tile of logits is dropped before the next
one is made: no [tokens, vocab] tensor exists. Reductions are row by row; a tile is padded to
two rows at least, since a lone row's sum is split among threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from model_runtime.batching.batch import AskedChoice, AskedPartition, AskedSet, Batch, BatchOutput
from model_runtime.kernels.rows import read_rows, row_index
from model_runtime.logprobs.log_partition import log_partitions_of_rows
from model_runtime.logprobs.set_mass import set_logprobs_of_rows
from model_runtime.logprobs.top_k import choices_of_rows, top_of_rows
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


def reduce_head_rows(hidden: Tensor, head: Head, batch: Batch, vocab_size: int) -> BatchOutput:
    """Everything that ``batch`` asks of its head rows.

    Args:
        hidden: [H, hidden_size] final hidden states of the head rows, in their order.
        head: the output projection.
        vocab_size: columns of the head; they bound a tile.
    """
    reduction = _Reduction(batch)
    for first, stop in _tiles(hidden.shape[0], tile_height(vocab_size, hidden.device)):
        reduction.add_tile(first, stop, _logits(hidden[first:stop], head))
    return reduction.output()


def tile_height(vocab_size: int, device: torch.device) -> int:
    """Rows of a tile."""
    tile = _TILE_BYTES if device.type == "cpu" else _TILE_BYTES_ON_DEVICE
    return max(8, tile // (4 * vocab_size) // 8 * 8)


def _tiles(rows: int, height: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, height):
        yield first, min(first + height, rows)


def _logits(hidden: Tensor, head: Head) -> Tensor:
    if hidden.shape[0] == 1:
        hidden = hidden.expand(2, -1)
    return head(hidden).float()


class _Reduction:
    """Collects the answers of one batch over its tiles."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
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

    def add_tile(self, first: int, stop: int, logits: Tensor) -> None:
        """Reduce the logits of head rows ``first .. stop - 1``: [at least stop - first, vocab]."""
        log_sum = logits.logsumexp(-1)
        finite = log_sum.isfinite().tolist()
        self._bad.update(head for head in range(first, stop) if not finite[head - first])
        self._gather(first, stop, logits, log_sum)
        self._list([h for h in range(first, stop) if finite[h - first]], first, logits, log_sum)
        if any(self._batch.summaries[first:stop]):
            entropies = _entropies(logits, log_sum).tolist()
            self._entropies.update(zip(range(first, stop), entropies, strict=False))

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
        )

    def _gather(self, first: int, stop: int, logits: Tensor, log_sum: Tensor) -> None:
        wanted: list[int] = []
        for head in range(first, stop):
            if len(self._gathers[head]) < MANY:
                wanted += self._gathers[head]
            else:
                self._gather_many(self._gathers[head], logits[head - first], log_sum[head - first])
        height = max(stop - first, tile_height(logits.shape[1], logits.device))
        for chunk in (wanted[i : i + height] for i in range(0, len(wanted), height)):
            rows = row_index([self._batch.gather_head[g] - first for g in chunk], logits.device)
            ids = torch.tensor([self._batch.gather_ids[g] for g in chunk], device=logits.device)
            among = read_rows(logits, rows)
            chosen = among.gather(1, ids.unsqueeze(1))
            logprobs = (chosen.squeeze(1) - read_rows(log_sum, rows)).tolist()
            ranks = _count_greater(among, chosen).tolist()
            for g, logprob, greater in zip(chunk, logprobs, ranks, strict=True):
                self._logprobs[g], self._ranks[g] = logprob, 1 + int(greater)

    def _gather_many(self, gathers: Sequence[int], logits: Tensor, log_sum: Tensor) -> None:
        """Of one row, [vocab]: what is greater than each id is found in the row sorted once."""
        ids = torch.tensor([self._batch.gather_ids[g] for g in gathers], device=logits.device)
        chosen = logits[ids]
        behind = torch.searchsorted(logits.sort().values, chosen, right=True)
        found = zip((chosen - log_sum).tolist(), (len(logits) - behind).tolist(), strict=True)
        for g, (logprob, greater) in zip(gathers, found, strict=True):
            self._logprobs[g], self._ranks[g] = logprob, 1 + greater

    def _list(self, heads: Sequence[int], first: int, logits: Tensor, log_sum: Tensor) -> None:
        """The top k, the choices, sums over sets and log-partitions, where they are asked."""
        batch = self._batch
        counts = [(h - first, batch.top_k[h]) for h in heads if batch.top_k[h]]
        for row, top in top_of_rows(logits, log_sum, counts):
            self._top[first + row] = top
        asked = [(h - first, choice) for h in heads for choice in self._asked.get(h, ())]
        for (row, choice), tokens in choices_of_rows(logits, log_sum, asked):
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


def _count_greater(logits: Tensor, chosen: Tensor) -> Tensor:
    """[G] how many tokens of each row are strictly more probable than its chosen one.

    Ones are added up as float32, which is exact up to 2^24 tokens and fifty times as fast as
    counting booleans.
    """
    return torch.gt(logits, chosen, out=torch.empty_like(logits)).sum(-1)


def _entropies(logits: Tensor, log_sum: Tensor) -> Tensor:
    """[M] - sum p log p of each row, in nats; a token of probability 0 adds nothing."""
    logprobs = logits - log_sum.unsqueeze(1)
    return -(logprobs.exp() * logprobs.clamp_(min=-1e4)).sum(-1)
