"""The exponential in float64, the same bits on every machine.

It is made of sums and products alone, which IEEE 754 rounds in one way: libraries have a formula of
their own for each instruction set.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_2 = (0.6931471803691238, 1.9082149292705877e-10)
"""Log 2 in two parts; the first has 33 bits, so that its product with an exponent is exact."""

_TERMS = 13
"""Of the series, which leave 4e-18 for numbers up to log(2) / 2."""

_LEAST = -708.0
"""Below it the exponential counts as 0: it is no normal number."""


def exponential(x: Tensor) -> Tensor:
    """exp(x) of float64 numbers that are at most 700, within 1e-15 of it; 0 below -708."""
    bounded = x.clamp(min=_LEAST)
    exponent = torch.round(bounded * (1 / math.log(2)))
    rest = bounded
    for part in _LOG_2:
        rest = rest - exponent * part
    y = torch.ones_like(rest)
    for term in range(_TERMS, 0, -1):
        y = 1 + y * rest / term
    power = ((exponent.long() + 1023) << 52).view(torch.float64)
    return (y * power).masked_fill_(x < _LEAST, 0.0)
