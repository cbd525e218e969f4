"""Linear layers laid out once the way the device's products want them.

On CPU that is oneDNN's blocked layout, called eagerly: exact in float32, and every row's bits
are the same for any number of rows from 2 on. One row takes another code path, so a single row
is padded. In bfloat16 only the product is rounded; what goes in and comes out stays float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from model_runtime.errors import UnsupportedModel

_ROWS_HINT = 256
_mkldnn = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """y = x W^T + b on CPU; holds the packed weight only."""

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        """``weight`` is [out_features, in_features]; ``dtype`` that of the product."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = dtype
        self.weight = _mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), _ROWS_HINT)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        count = rows.shape[0]
        if count == 1:
            rows = rows.expand(2, -1)
        y = self._product(rows.to(self.dtype).contiguous())[:count]
        return y.view(*x.shape[:-1], self.out_features)

    def _product(self, rows: Tensor) -> Tensor:
        if self.dtype is torch.float32:
            return _pointwise(rows, self.weight, self.bias)
        y = _pointwise(rows, self.weight, None).float()
        return y if self.bias is None else y.add_(self.bias)


class RoundedLinear(nn.Module):
    """y = x W^T + b whose product alone is in a lower precision; for every other device."""

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        """``weight`` is [out_features, in_features]; ``dtype`` that of the product."""
        super().__init__()
        self.dtype = dtype
        self.register_buffer("weight", weight.to(dtype))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.linear(x.to(self.dtype), self.weight).to(x.dtype)  # type: ignore[arg-type]
        return y if self.bias is None else y.add_(self.bias)


def _pointwise(rows: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = _mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return y


def check_products(device: torch.device, dtype: torch.dtype) -> None:
    """Whether this device has the products that the layers are laid out for.

    Raises:
        UnsupportedModel: it has not; the message says what is missing.
    """
    if device.type != "cpu":
        return
    if not torch._C._has_mkldnn:
        raise UnsupportedModel("this build of torch has no oneDNN, which the CPU products need")
    if dtype is torch.bfloat16 and not _mkldnn._is_mkldnn_bf16_supported():
        raise UnsupportedModel("dtype bfloat16 needs a CPU with AVX-512; this one has float32 only")


def lay_out_linears(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Replace every linear layer below ``module``, one at a time, freeing as it goes."""
    for name, child in module.named_children():
        weight = _weight(child)
        if weight is None:
            lay_out_linears(child, device, dtype)
        elif device.type == "cpu":
            setattr(module, name, PackedLinear(weight, _bias(child), dtype))
        elif dtype is not weight.dtype:
            setattr(module, name, RoundedLinear(weight, _bias(child), dtype))


def _weight(module: nn.Module) -> Tensor | None:
    """[out_features, in_features] of a linear layer; None for any other."""
    if isinstance(module, nn.Linear):
        return module.weight.detach()
    return module.weight.detach().t() if isinstance(module, Conv1D) else None


def _bias(module: nn.Module) -> Tensor | None:
    bias = module.bias
    return bias.detach() if isinstance(bias, Tensor) else None
