"""The attention kernel of CUDA devices: what torch ships, in the precision of the stored keys.

============================  ==========================================================
scores are capped, or a head  plain products in float32
is no multiple of 8 wide
no mask, 16-bit keys          flash attention
everything else               memory-efficient attention; in float32 its tensor cores
                              take three products each, so that nothing is rounded to
                              TF32
============================  ==========================================================

The kernels are called by their own names, since these alone return the log-sum-exp. What comes
out has the query's precision, so that parts are merged in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model_runtime.attention import plain as products

HEAD_STEP = 8
"""The fused kernels load heads in pieces of 16 bytes: eight values of 16 bits."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention
_efficient = torch.ops.aten._scaled_dot_product_efficient_attention


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its scores; shapes as in ``path_attention.Kernel``.

    ``key`` and ``value`` may be narrower than ``query``, which is rounded to them then.
    """
    if softcap is not None or query.shape[-1] % HEAD_STEP:
        return products.attend(query, key.float(), value.float(), mask, scaling, softcap)
    rounded = query.to(key.dtype)
    if mask is None and key.dtype.itemsize == 2:
        output, log_sum, *_ = _flash(rounded, key, value, scale=scaling)
    else:
        bias = None if mask is None else _bias(mask, rounded, key)
        output, log_sum, *_ = _efficient(rounded, key, value, bias, True, scale=scaling)
    # the memory-efficient kernel pads its rows to a multiple of 32 here
    return output.to(query.dtype), log_sum.narrow(2, 0, query.shape[2])


def _bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The mask as the kernel takes it: of the query's precision, and with every dimension."""
    return mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
