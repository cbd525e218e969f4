"""Cosines and sines of rotary positions, the same bits on every machine.

They are computed in float64 out of sums and products alone, which IEEE 754 rounds in one way, and
then rounded to float32: libraries have formulas of their own for each instruction set.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model_runtime.decoder.description import Rotation

_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
"""Pi / 2 in three parts; the first two have 33 bits, so that their products with n are exact."""

_TERMS = 9
"""Of the series of sine and cosine, which leave 1e-19 for angles up to pi / 4."""

_ROWS_AT_FIRST = 1024


class AngleTable:
    """Cosines and sines by position; grows with the positions that are asked for."""

    def __init__(self, rotation: Rotation) -> None:
        self._frequencies = rotation.inverse_frequencies.double()
        self._scaling = rotation.scaling
        self._cosine = self._sine = torch.empty(0, 2 * len(self._frequencies))

    @property
    def width(self) -> int:
        """Columns of a head that are rotated."""
        return 2 * len(self._frequencies)

    def of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[N, width] cosines and sines for [N] positions; both halves of a row are the same."""
        longest = int(positions.max()) + 1
        if longest > len(self._cosine):
            self._grow(max(_ROWS_AT_FIRST, 1 << (longest - 1).bit_length()))
        return self._cosine.index_select(0, positions), self._sine.index_select(0, positions)

    def _grow(self, rows: int) -> None:
        known = len(self._cosine)
        new = torch.arange(known, rows, dtype=torch.float64).unsqueeze(1)
        angles = (new * self._frequencies).repeat(1, 2)
        cosine, sine = cosine_and_sine(angles)
        self._cosine = torch.cat([self._cosine, (cosine * self._scaling).float()])
        self._sine = torch.cat([self._sine, (sine * self._scaling).float()])


def cosine_and_sine(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Of float64 angles from 0 to 2^20, within 1e-15."""
    quarters = torch.round(angles * (2 / math.pi))
    rest = angles
    for part in _HALF_PI:
        rest = rest - quarters * part
    square = rest * rest
    cosine, sine = torch.ones_like(rest), torch.ones_like(rest)
    for term in range(_TERMS, 0, -1):
        cosine = 1 - cosine * square / ((2 * term - 1) * (2 * term))
        sine = 1 - sine * square / ((2 * term) * (2 * term + 1))
    sine = sine * rest
    quadrant = quarters.long() % 4
    swapped = quadrant % 2 == 1
    cosine, sine = torch.where(swapped, sine, cosine), torch.where(swapped, cosine, sine)
    cosine = torch.where((quadrant == 1) | (quadrant == 2), -cosine, cosine)
    return cosine, torch.where(quadrant >= 2, -sine, sine)
