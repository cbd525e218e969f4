"""Linear layers whose weights are laid out once in the order that the CPU's product wants.

oneDNN's blocked layout, called eagerly: exact float32, and every row's bits are the same for
any number of rows from 2 on. One row takes another code path, so a single row is padded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_ROWS_HINT = 256
_mkldnn = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """y = x W^T + b over rows; holds the packed weight only."""

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """``weight`` is [out_features, in_features]; the caller may drop it afterwards."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = _mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS_HINT)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        count = rows.shape[0]
        if count == 1:
            rows = rows.expand(2, -1)
        y: Tensor = _mkldnn._linear_pointwise(
            rows.contiguous(), self.weight, self.bias, "none", [], ""
        )
        return y[:count].view(*x.shape[:-1], self.out_features)


def can_pack(device: torch.device) -> bool:
    """Packed products exist for this device."""
    return device.type == "cpu" and torch._C._has_mkldnn


def pack_linears(module: nn.Module) -> None:
    """Replace every linear layer below ``module``, one at a time, freeing as it goes."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, PackedLinear(child.weight, child.bias))
        elif isinstance(child, Conv1D):
            setattr(module, name, PackedLinear(child.weight.t(), child.bias))
        else:
            pack_linears(child)
