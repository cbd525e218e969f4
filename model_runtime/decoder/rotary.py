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

_PIECE = 1024
"""Positions that are computed at a time."""


class AngleTable:
    """Cosines and sines by position; grows with the positions that are asked for."""

    def __init__(self, rotation: Rotation) -> None:
        self._frequencies = rotation.inverse_frequencies.double()
        self._scaling = rotation.scaling
        self._cosine = self._sine = torch.empty(0, len(self._frequencies))

    @property
    def width(self) -> int:
        """Columns of a head that are rotated."""
        return 2 * len(self._frequencies)

    def of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[N, width] cosines and sines for [N] positions; both halves of a row are the same."""
        longest = int(positions.max()) + 1
        if longest > len(self._cosine):
            self._grow(-(-longest // _PIECE) * _PIECE)
        cosine, sine = (x.index_select(0, positions) for x in (self._cosine, self._sine))
        return cosine.repeat(1, 2), sine.repeat(1, 2)

    def _grow(self, rows: int) -> None:
        cosines, sines = [self._cosine], [self._sine]
        for first in range(len(self._cosine), rows, _PIECE):
            new = torch.arange(first, first + _PIECE, dtype=torch.float64).unsqueeze(1)
            cosine, sine = cosine_and_sine(new * self._frequencies)
            cosines.append((cosine * self._scaling).float())
            sines.append((sine * self._scaling).float())
        self._cosine, self._sine = torch.cat(cosines), torch.cat(sines)


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
