"""The exponential of sums and products."""

from __future__ import annotations

import math

import torch

from model_runtime.logprobs.exponential import exponential


def test_it_is_the_c_librarys() -> None:
    """Within a few units of the last place, at its ends, and of minus infinity."""
    generator = torch.Generator().manual_seed(0)
    drawn = -(torch.rand(5000, generator=generator, dtype=torch.float64) ** 3) * 700
    ends = torch.tensor([0.0, -1e-300, -708.0, 1.0, 700.0, math.log(2) / 2], dtype=torch.float64)
    numbers = torch.cat([drawn, ends])
    for x, y in zip(numbers.tolist(), exponential(numbers).tolist(), strict=True):
        assert abs(y / math.exp(x) - 1) <= 1e-15
    none = torch.tensor([-math.inf, -709.0, -1e30], dtype=torch.float64)
    assert exponential(none).tolist() == [0.0, 0.0, 0.0]
