"""Attention as plain products: for capped scores, which no fused kernel knows, on any device.

Keys come in blocks, whose sums are merged in their order. A product over more of them would be
split among threads, and a row's bits with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

KEYS_AT_ONCE = 512
"""Keys of a block, counted from the first key of the span."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its scores; shapes as in ``path_attention.Kernel``."""
    scaled = query * (scaling if softcap is None else scaling / softcap)
    sums: _Sums | None = None
    for first in range(0, key.shape[2], KEYS_AT_ONCE):
        keys = min(KEYS_AT_ONCE, key.shape[2] - first)
        scores = scaled @ key.narrow(2, first, keys).transpose(2, 3)
        if softcap is not None:
            scores.tanh_().mul_(softcap)
        if mask is not None:
            scores.add_(mask.narrow(3, first, keys))
        new = _Sums.of(scores, value.narrow(2, first, keys))
        sums = new if sums is None else sums.merged(new)
    if sums is None:
        raise ValueError("a span has no keys; this is a bug")
    return sums.attended()


class _Sums:
    """Of some keys, per row: the greatest score, exponentials below it, values weighted by them.

    [n, kv_heads, M, 1], the same, and [n, kv_heads, M, head_dim].
    """

    def __init__(self, peak: Tensor, total: Tensor, weighted: Tensor) -> None:
        self._peak = peak
        self._total = total
        self._weighted = weighted

    @classmethod
    def of(cls, scores: Tensor, value: Tensor) -> _Sums:
        """Of one block; ``scores`` is written over."""
        peak = scores.amax(-1, keepdim=True)
        weights = scores.sub_(peak).exp_()
        return cls(peak, weights.sum(-1, keepdim=True), weights @ value)

    def merged(self, later: _Sums) -> _Sums:
        """Of both blocks; the tensors of both are written over."""
        peak = torch.maximum(self._peak, later._peak)
        mine, its = (self._peak - peak).exp_(), (later._peak - peak).exp_()
        total = self._total.mul_(mine).add_(later._total.mul_(its))
        weighted = self._weighted.mul_(mine).add_(later._weighted.mul_(its))
        return _Sums(peak, total, weighted)

    def attended(self) -> tuple[Tensor, Tensor]:
        output = self._weighted.div_(self._total)
        return output, self._total.log_().add_(self._peak).squeeze(-1)
