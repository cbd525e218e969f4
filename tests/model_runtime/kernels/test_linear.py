"""The laid-out linear layers against float64 products of what they are given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from model_runtime.errors import UnsupportedModel
from model_runtime.kernels.linear import (
    FusedLinearSlice,
    PackedLinear,
    RoundedLinear,
    check_products,
    forget_products,
    pack_linears,
)
from model_runtime.kernels.threads import ThreadLimiter

CPU = torch.device("cpu")


def product_in_double(x: Tensor, layer: nn.Linear) -> Tensor:
    y = x.double() @ layer.weight.double().t()
    return y if layer.bias is None else y + layer.bias.double()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 7, 300])
def test_packed_products_are_exact(rows: int, bias: bool) -> None:
    """For any number of rows, one included, and any leading shape."""
    layer, x = nn.Linear(96, 80, bias=bias), torch.randn(1, rows, 96)
    packed = PackedLinear(layer.weight.detach(), layer.bias, torch.float32, ThreadLimiter())
    torch.testing.assert_close(packed(x).double(), product_in_double(x, layer), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_rounded_products_round_what_goes_in_and_comes_out(bias: bool) -> None:
    """The product of rounded factors, rounded once more; the bias is not."""
    layer, x = nn.Linear(96, 80, bias=bias), torch.randn(5, 96)
    rounded = RoundedLinear(layer.weight.detach(), layer.bias, torch.bfloat16)
    layer.weight.data = layer.weight.data.bfloat16().float()
    want = product_in_double(x.bfloat16().float(), layer)
    got = rounded(x)
    assert got.dtype is torch.float32
    torch.testing.assert_close(got.double(), want, rtol=2**-8, atol=2**-8)


def test_packed_bfloat16_equals_rounded_where_the_cpu_has_it() -> None:
    """Both round at the same places."""
    try:
        check_products(CPU, torch.bfloat16)
    except UnsupportedModel:
        pytest.skip("this CPU has no bfloat16 products")
    weight, bias, x = torch.randn(80, 96), torch.randn(80), torch.randn(5, 96)
    packed = PackedLinear(weight, bias, torch.bfloat16, ThreadLimiter())(x)
    rounded = RoundedLinear(weight, bias, torch.bfloat16)(x)
    torch.testing.assert_close(packed, rounded, rtol=2**-7, atol=2**-6)


def test_every_linear_layer_is_laid_out_whichever_way_its_weight_lies() -> None:
    """Conv1D keeps its weight transposed; the values stay the same."""
    model = nn.ModuleDict({"a": nn.Linear(16, 24), "b": nn.Sequential(Conv1D(8, 24))})
    x = torch.randn(3, 16)
    with torch.no_grad():
        want = model["b"](model["a"](x))
    pack_linears(model, CPU, torch.float32, ThreadLimiter())
    assert isinstance(model["a"], PackedLinear)
    torch.testing.assert_close(model["b"](model["a"](x)), want)


class Attention(nn.Module):
    """Three layers of one input, as the Llama family names them."""

    def __init__(self, bias: tuple[bool, bool, bool]) -> None:
        super().__init__()
        self.q_proj = nn.Linear(32, 48, bias=bias[0])
        self.k_proj = nn.Linear(32, 16, bias=bias[1])
        self.v_proj = nn.Linear(32, 16, bias=bias[2])

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.q_proj(x), self.k_proj(x), self.v_proj(x)]


@pytest.mark.parametrize("bias", [(False,) * 3, (True,) * 3])
def test_layers_of_one_input_are_one_product(bias: tuple[bool, bool, bool]) -> None:
    """Query, key and value are computed at once and equal the layers apart, call after call."""
    module = Attention(bias)
    inputs = [torch.randn(1, 7, 32), torch.randn(1, 2, 32), torch.randn(1, 2, 32)]
    with torch.no_grad():
        want = [module(x) for x in inputs]
    pack_linears(module, CPU, torch.float32, ThreadLimiter())
    assert isinstance(module.q_proj, FusedLinearSlice)
    for x, expected in zip(inputs, want, strict=True):
        torch.testing.assert_close(module(x), expected)


def test_layers_with_and_without_a_bias_stay_apart() -> None:
    """Only layers of one form are put together."""
    module = Attention((True, False, True))
    pack_linears(module, CPU, torch.float32, ThreadLimiter())
    assert isinstance(module.q_proj, PackedLinear)


def test_a_shared_product_keeps_nothing_after_its_last_part() -> None:
    """The next forward of an equal input computes anew, and memory is not held between."""
    module = Attention((False,) * 3)
    pack_linears(module, CPU, torch.float32, ThreadLimiter())
    x = torch.randn(4, 32)
    first = module(x)
    x.mul_(2.0)
    torch.testing.assert_close(module(x), [2.0 * part for part in first])


def test_what_a_failed_forward_left_is_forgotten() -> None:
    """A product whose parts were not all taken is let go of, and not given to the next forward."""
    module = Attention((False,) * 3)
    pack_linears(module, CPU, torch.float32, ThreadLimiter())
    x = torch.randn(4, 32)
    first = module.q_proj(x)
    forget_products(module)
    x.mul_(2.0)
    torch.testing.assert_close(module.q_proj(x), 2.0 * first)
