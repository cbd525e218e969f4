"""Our activations against torch's own in float64, and at every place of a tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu
from transformers.activations import ACT2FN

from model_runtime.errors import UnsupportedModel
from model_runtime.kernels.activations import (
    UniformErfGELU,
    UniformGELU,
    UniformSiLU,
    replace_activations,
)

PAIRS = [
    (UniformSiLU(), silu),
    (UniformGELU(), lambda x: gelu(x, approximate="tanh")),
    (UniformErfGELU(), gelu),
]


@pytest.mark.parametrize(("ours", "exact"), PAIRS)
def test_values_are_those_of_the_formula(
    ours: nn.Module, exact: Callable[[Tensor], Tensor]
) -> None:
    """Over the range that layers use, far tails included, within float32's rounding."""
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([-100.0, -1e4, 0.0, 100.0, 1e4])])
    torch.testing.assert_close(ours(x).double(), exact(x.double()), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(("ours", "_exact"), PAIRS)
def test_bits_do_not_depend_on_the_place(ours: nn.Module, _exact: object) -> None:
    """A row has the same bits alone and anywhere in a tensor of ragged width."""
    rows = torch.randn(50, 101, generator=torch.Generator().manual_seed(1)) * 3
    assert torch.equal(torch.stack([ours(row) for row in rows]), ours(rows))


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("silu", UniformSiLU),
        ("swish", UniformSiLU),
        ("gelu_new", UniformGELU),
        ("gelu_pytorch_tanh", UniformGELU),
        ("gelu", UniformErfGELU),
    ],
)
def test_the_models_own_activations_are_replaced(name: str, ours: type[nn.Module]) -> None:
    """Each by the one of the same formula, however deep it lies."""
    model = nn.Sequential(nn.Sequential(ACT2FN[name]))
    replace_activations(model)
    assert type(model[0][0]) is ours


def test_an_activation_without_a_counterpart_is_refused() -> None:
    """The message names it."""
    with pytest.raises(UnsupportedModel, match="Mish"):
        replace_activations(nn.Sequential(nn.Mish()))
