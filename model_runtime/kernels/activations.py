"""Activations whose bits do not depend on where an element lies in its tensor.

torch computes SiLU and GELU with one formula in the vector body of a thread's share and another
in its tail, and where shares end depends on the number of rows. ``exp`` and ``tanh`` do not do
that, nor do sums and products, so these compositions are the same at any place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers.activations import (
    GELUActivation,
    GELUTanh,
    NewGELUActivation,
    QuickGELUActivation,
    SiLUActivation,
)

from model_runtime.errors import UnsupportedModel


class UniformSiLU(nn.Module):
    """x / (1 + exp(-x))"""

    def forward(self, x: Tensor) -> Tensor:
        divisor = x.neg().exp_().add_(1.0)
        return torch.div(x, divisor, out=divisor)


class UniformGELU(nn.Module):
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), the tanh form of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        inner = (x * x * x).mul_(0.044715).add_(x).mul_(math.sqrt(2.0 / math.pi))
        return inner.tanh_().add_(1.0).mul_(x).mul_(0.5)


class UniformErfGELU(nn.Module):
    """x / 2 * (1 + erf(x / sqrt(2)))"""

    def forward(self, x: Tensor) -> Tensor:
        return (x * math.sqrt(0.5)).erf_().add_(1.0).mul_(x).mul_(0.5)


_UNIFORM: tuple[tuple[tuple[type[nn.Module], ...], type[nn.Module]], ...] = (
    ((nn.SiLU, SiLUActivation), UniformSiLU),
    ((GELUTanh, NewGELUActivation), UniformGELU),
    ((GELUActivation,), UniformErfGELU),
)
_REFUSED = (nn.GELU, nn.Sigmoid, nn.Mish, QuickGELUActivation)


def replace_activations(module: nn.Module) -> None:
    """Replace every activation below ``module`` by one that is place-independent.

    Raises:
        UnsupportedModel: there is none for it.
    """
    for name, child in module.named_children():
        if isinstance(child, _REFUSED):
            raise UnsupportedModel(f"the activation {type(child).__name__} is not served")
        uniform = next((new for old, new in _UNIFORM if isinstance(child, old)), None)
        if uniform is None:
            replace_activations(child)
        else:
            setattr(module, name, uniform())
