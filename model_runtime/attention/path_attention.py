"""Path attention: row r attends to its own token path, in two parts that merge in one order.

    attention over the suffix span  (output, log of the sum of exponentials)
    merged with the prefix span     weight = 1 / (1 + exp(suffix log-sum - prefix log-sum))

Every shape that a row's arithmetic sees follows from the row's own position. Neighbours decide
only how many other rows the same product has, on which a row's bits do not depend.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from model_runtime.attention.span_groups import SpanGroup, group_spans
from model_runtime.batching.batch import Batch
from model_runtime.batching.block_sizes import ROW_STEP
from model_runtime.kernels.rows import read_rows, row_index, write_rows
from model_runtime.kv_cache.prefix_cache import not_finite
from model_runtime.kv_cache.storage import KVStorage

Kernel = Callable[
    [Tensor, Tensor, Tensor, Tensor | None, float, float | None], tuple[Tensor, Tensor]
]
"""(query, key, value, mask, scaling, softcap) -> (output, log-sum-exp of the scores).

[n, kv_heads, M, head_dim], [n, kv_heads, F, head_dim] twice and a mask that is added, [n, 1, M, F],
give [n, kv_heads, M, head_dim] and [n, kv_heads, M].
"""


class PathAttention:
    """The attention of one batch: laid out once, applied by every layer.

    Attributes:
        layers: which layers have come here.
        bad: [N] which tokens' keys or values were not finite in one of them; None for no token.
    """

    def __init__(
        self, batch: Batch, storage: KVStorage, kernel: Kernel, row_step: int = ROW_STEP
    ) -> None:
        """Lay out a batch for ``kernel``, which takes multiples of ``row_step`` rows."""
        self._batch = batch
        self._storage = storage
        self._kernel = kernel
        self._row_step = row_step
        self._slots = row_index(batch.slots, storage.device)
        self._groups: dict[tuple[int, int | None], list[SpanGroup]] = {}
        self.layers: set[int] = set()
        self.bad: Tensor | None = None

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Store this layer's new keys and values, then attend.

        Args:
            query: [heads, N, head_dim]; key, value: [kv_heads, N, head_dim].
            window: a row sees its ``window`` latest positions; None for all.
            softcap: scores become ``softcap * tanh(score / softcap)``.

        Returns:
            [N, heads, head_dim]
        """
        self._storage.check(key, value)
        self.layers.add(layer)
        self._write(layer, key, value)
        kv_heads, group = key.shape[0], query.shape[0] // key.shape[0]
        folded = _fold(query, kv_heads)
        attended = _Attended(folded)
        for spans in self._spans(group, window):
            rows = read_rows(folded, spans.rows).view(spans.count, spans.height, kv_heads, -1)
            keys, values = self._storage.read(layer, spans.slots)
            attended.add(
                spans,
                *self._kernel(
                    rows.transpose(1, 2),
                    keys.view(spans.count, spans.keys, kv_heads, -1).transpose(1, 2),
                    values.view(spans.count, spans.keys, kv_heads, -1).transpose(1, 2),
                    spans.mask,
                    scaling,
                    softcap,
                ),
            )
        return _unfold(attended.output, group)

    def _write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store keys and values; which of them are not finite is asked where some are not.

        Two sums tell that on a CPU. Elsewhere they would be a wait for the device.
        """
        bad = None
        if not key.is_cpu or not math.isfinite(float(key.sum() + value.sum())):
            bad = not_finite(key, value)
            self.bad = bad if self.bad is None else self.bad | bad
        self._storage.write(layer, self._slots, key.transpose(0, 1), value.transpose(0, 1), bad)

    def _spans(self, group: int, window: int | None) -> list[SpanGroup]:
        if (group, window) not in self._groups:
            spans = group_spans(self._batch, group, window, self._storage.device, self._row_step)
            self._groups[group, window] = spans
        return self._groups[group, window]


class _Attended:
    """What every folded row has attended to so far.

    Attributes:
        output: [N * group, kv_heads, head_dim]
    """

    def __init__(self, folded: Tensor) -> None:
        self.output = torch.empty_like(folded)
        self._log_sum = folded.new_empty((*folded.shape[:2], 1), dtype=torch.float32)

    def add(self, spans: SpanGroup, output: Tensor, log_sum: Tensor) -> None:
        """Put a suffix span's result in, or merge a prefix span's with what is there."""
        new = read_rows(output.transpose(1, 2).flatten(0, 1), spans.real)
        new_log_sum = read_rows(log_sum.transpose(1, 2).flatten(0, 1).unsqueeze(-1), spans.real)
        if spans.is_suffix:
            write_rows(self.output, spans.target, new)
            write_rows(self._log_sum, spans.target, new_log_sum)
            return
        old = read_rows(self.output, spans.target)
        weight = (
            (read_rows(self._log_sum, spans.target) - new_log_sum).exp_().add_(1.0).reciprocal_()
        )
        old.add_(new.sub_(old).mul_(weight))
        if not isinstance(spans.target, slice):
            write_rows(self.output, spans.target, old)


def _fold(query: Tensor, kv_heads: int) -> Tensor:
    """[heads, N, head_dim] -> [N * group, kv_heads, head_dim]"""
    heads, rows, head_dim = query.shape
    by_group = query.reshape(kv_heads, heads // kv_heads, rows, head_dim)
    return by_group.permute(2, 1, 0, 3).reshape(-1, kv_heads, head_dim)


def _unfold(folded: Tensor, group: int) -> Tensor:
    """[N * group, kv_heads, head_dim] -> [N, heads, head_dim]"""
    _, kv_heads, head_dim = folded.shape
    by_row = folded.view(-1, group, kv_heads, head_dim)
    return by_row.transpose(1, 2).reshape(-1, kv_heads * group, head_dim)
