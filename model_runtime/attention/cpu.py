"""The attention kernel of CPUs: torch's flash kernel, and plain products where scores are capped.

The flash kernel is called by its own name, since it alone returns the log-sum-exp. Rows of one
call do not change each other's bits from four in a tile on; a tile has 32 rows at least, and
callers pad to multiples of eight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model_runtime.attention import products

VECTOR = 8
"""Columns that every product's kernels divide by."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its scores; shapes as in ``paths.Kernel``."""
    if query.shape[0] * query.shape[1] == 1 and query.shape[3] % VECTOR:
        # A lone product is split among threads by columns, which shows where they are ragged.
        q, k, v = (tensor.expand(2, -1, -1, -1) for tensor in (query, key, value))
        output, log_sum = attend(q, k, v, mask, scaling, softcap)
        return output[:1], log_sum[:1]
    if softcap is not None:
        return products.attend(query, key, value, mask, scaling, softcap)
    output, log_sum = _flash(query, key, value, 0.0, False, attn_mask=mask, scale=scaling)
    return output, log_sum
