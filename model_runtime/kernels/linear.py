"""Linear layers laid out once the way the device's products want them.

On CPU that is oneDNN's blocked layout, called eagerly: exact in float32, and every row's bits
are the same for any number of rows from 2 on. One row takes another code path, so a single row
is padded. In bfloat16 only the product is rounded; what goes in and comes out stays float32.

Where a row's bits do change with the number of rows, as they do in bfloat16 on CPUs with AMX,
every product has one number of rows, a tile, and what is missing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from model_runtime.errors import UnsupportedModel
from model_runtime.kernels.threads import ThreadLimiter

TILES = (None, 128, 256, 64)
"""Rows of every product, the first that keeps bits; None for any number.

Of bfloat16 products on AMX 64 rows reach 604 GFLOP/s, 128 reach 881 and 256 reach 1,116. So the
products of a decode step take 23, 31 or 49 ms, and those of scoring 1.8, 1.3 or 1 times the least.
"""

_ROWS_HINT = 256
_mkldnn = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """y = x W^T + b on CPU; holds the packed weight only.

    Attributes:
        tile: rows of every product; None where a row's bits do not depend on how many there are.
    """

    bias: Tensor | None
    tile: int | None = None

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, threads: ThreadLimiter
    ) -> None:
        """``weight`` is [out_features, in_features]; ``dtype`` that of the product."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = dtype
        self._threads = threads
        self.weight = _mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), _ROWS_HINT)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        y = self._whole(rows) if self.tile is None else self._in_tiles(rows, self.tile)
        return y.view(*x.shape[:-1], self.out_features)

    def _whole(self, rows: Tensor) -> Tensor:
        count = rows.shape[0]
        if count == 1:
            rows = rows.expand(2, -1)
        with self._threads.for_product(count):
            return self._product(rows.to(self.dtype).contiguous())[:count]

    def _in_tiles(self, rows: Tensor, tile: int) -> Tensor:
        count = rows.shape[0]
        padded = -(-count // tile) * tile
        filled = rows.new_zeros((padded, self.in_features), dtype=self.dtype)
        filled[:count] = rows
        y = rows.new_empty((padded, self.out_features), dtype=torch.float32)
        with self._threads.for_product(tile):
            for first in range(0, padded, tile):
                y[first : first + tile] = self._product(filled[first : first + tile])
        return y[:count]

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


class FusedLinear:
    """One product for several layers of the same input: the first asks for it, all take a part."""

    def __init__(self, linear: nn.Module, parts: int) -> None:
        self._linear = linear
        self._parts = parts
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._taken = 0

    def of(self, x: Tensor) -> Tensor:
        """The whole product of ``x``; kept until every part has been taken."""
        if x is not self._input or self._output is None:
            self._input, self._output, self._taken = x, self._linear(x), 0
        output = self._output
        self._taken += 1
        if self._taken == self._parts:
            self.forget()
        return output

    def forget(self) -> None:
        self._input = self._output = None


class FusedLinearSlice(nn.Module):
    """A linear layer whose columns are computed together with those of its siblings.

    The siblings are called on the same tensor, which is not written to between their calls.
    """

    def __init__(self, product: FusedLinear, start: int, stop: int) -> None:
        super().__init__()
        self.out_features = stop - start
        self._product = product
        self._columns = slice(start, stop)

    def forward(self, x: Tensor) -> Tensor:
        """A view of the shared product: [..., out_features]."""
        return self._product.of(x)[..., self._columns]

    def forget(self) -> None:
        """Let go of a product whose parts were not all taken."""
        self._product.forget()


_SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that the models of the Llama family call on one input, by their names."""


MakeLinear = Callable[[Tensor, Tensor | None], nn.Module]
"""(weight, bias) -> the layer that takes their place."""


def pack_linears(
    module: nn.Module, device: torch.device, dtype: torch.dtype, threads: ThreadLimiter
) -> list[PackedLinear]:
    """Replace every linear layer below ``module``, one at a time, freeing as it goes.

    Args:
        module: the model, or a part of it.
        device: where it runs.
        dtype: of the products.
        threads: shared by all layers of a runner; of no use but on CPU.

    Returns:
        The layers that took their places on a CPU.
    """
    packed: list[PackedLinear] = []

    def make_linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
        if device.type != "cpu":
            return RoundedLinear(weight, bias, dtype)
        packed.append(PackedLinear(weight, bias, dtype, threads))
        return packed[-1]

    _replace_linears(module, make_linear)
    return packed


def _replace_linears(module: nn.Module, make_linear: MakeLinear) -> None:
    for names in _SIBLINGS:
        _fuse(module, names, make_linear)
    for name, child in module.named_children():
        weight = _weight(child)
        if weight is None:
            _replace_linears(child, make_linear)
        else:
            setattr(module, name, make_linear(weight, _bias(child)))


def forget_products(module: nn.Module) -> None:
    """After a forward that failed: nothing of it stays in memory or answers the next one."""
    for child in module.modules():
        if isinstance(child, FusedLinearSlice):
            child.forget()


def _fuse(module: nn.Module, names: Sequence[str], make_linear: MakeLinear) -> None:
    layers = [getattr(module, name, None) for name in names]
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    biases = [_bias(linear) for linear in linears]
    present = [bias for bias in biases if bias is not None]
    if len(linears) < len(names) or len(present) not in (0, len(names)):
        return
    weight = torch.cat([linear.weight.detach() for linear in linears])
    bias = torch.cat(present) if present else None
    product = FusedLinear(make_linear(weight, bias), len(names))
    start = 0
    for name, linear in zip(names, linears, strict=True):
        setattr(module, name, FusedLinearSlice(product, start, start + linear.out_features))
        start += linear.out_features


def _weight(module: nn.Module) -> Tensor | None:
    """[out_features, in_features] of a linear layer; None for any other."""
    if isinstance(module, nn.Linear):
        return module.weight.detach()
    return module.weight.detach().t() if isinstance(module, Conv1D) else None


def _bias(module: nn.Module) -> Tensor | None:
    bias = module.bias
    return bias.detach() if isinstance(bias, Tensor) else None
