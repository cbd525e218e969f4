"""Path attention in fixed shapes: every row gathers all keys of its own path.

Nothing is shared between rows, so nothing depends on who shares: the work is more than that of
``PathAttention``, but the same kernels run on the same shapes whatever the batch is, and can be
recorded once. It is for batches of few rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.attention.path_attention import Kernel
from model_runtime.attention.span_groups import UNSEEN
from model_runtime.kv_cache.prefix_cache import not_finite
from model_runtime.kv_cache.storage import KVStorage


@dataclass(frozen=True, slots=True)
class StepRows:
    """Rows of R single tokens and the K keys that each may see. Tensors of int64.

    Attributes:
        token_ids, positions, slots: [R] as in ``Batch``.
        keys: [R * K] the slots of each row's path by position; beyond its own, slot 0.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    keys: Tensor


class StepAttention:
    """The attention of one step. Has ``PathAttention``'s ``attend``, ``layers`` and ``bad``."""

    def __init__(self, rows: StepRows, storage: KVStorage, kernel: Kernel) -> None:
        self._rows = rows
        self._storage = storage
        self._kernel = kernel
        self._masks: dict[int | None, Tensor] = {}
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
        """Store this layer's new keys and values, then attend; see ``PathAttention.attend``."""
        self.layers.add(layer)
        bad = not_finite(key, value)
        self.bad = bad if self.bad is None else self.bad | bad
        self._storage.write(
            layer, self._rows.slots, key.transpose(0, 1), value.transpose(0, 1), bad
        )
        kv_heads, count, head_dim = key.shape
        by_row = query.reshape(kv_heads, -1, count, head_dim).permute(2, 0, 1, 3)
        keys, values = (
            stored.view(count, -1, kv_heads, head_dim).transpose(1, 2)
            for stored in self._storage.read(layer, self._rows.keys)
        )
        mask = self._mask(keys, by_row.shape[2], window)
        output, _ = self._kernel(by_row.contiguous(), keys, values, mask, scaling, softcap)
        return output.reshape(count, -1, head_dim)

    def _mask(self, keys: Tensor, group: int, window: int | None) -> Tensor:
        """[R, 1, group, K] in the precision of the keys, 0 where a row sees a key."""
        if window not in self._masks:
            last = self._rows.positions.unsqueeze(1)
            key = torch.arange(keys.shape[2], device=keys.device)
            unseen = key > last
            if window is not None:
                unseen |= key <= last - window
            mask = torch.zeros(unseen.shape, dtype=keys.dtype, device=keys.device)
            mask.masked_fill_(unseen, UNSEEN)
            self._masks[window] = mask.view(len(last), 1, 1, -1).expand(-1, -1, group, -1)
        return self._masks[window]
