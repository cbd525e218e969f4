"""Cosines and sines of rotary positions."""

from __future__ import annotations

import math

import torch

from model_runtime.decoder.description import Rotation
from model_runtime.decoder.rotary import AngleTable, cosine_and_sine


def test_cosines_and_sines_are_those_of_the_c_library() -> None:
    """Within two units of the last place of 1, in every quadrant and at their borders."""
    generator = torch.Generator().manual_seed(0)
    angles = torch.rand(5000, generator=generator, dtype=torch.float64) * 2**20
    borders = torch.arange(64, dtype=torch.float64) * (math.pi / 4)
    angles = torch.cat([angles, borders, torch.arange(100, dtype=torch.float64)])
    cosine, sine = cosine_and_sine(angles)
    for angle, c, s in zip(angles.tolist(), cosine.tolist(), sine.tolist(), strict=True):
        assert abs(c - math.cos(angle)) <= 4.5e-16
        assert abs(s - math.sin(angle)) <= 4.5e-16


def test_a_table_grows_without_changing_what_it_gave() -> None:
    """Rows are asked for in any order; both halves of a row turn by the same angles."""
    rotation = Rotation(torch.tensor([1.0, 0.3, 0.01]), scaling=1.5)
    table = AngleTable(rotation)
    assert table.width == 6
    cosine, sine = table.of(torch.tensor([7, 0, 7]))
    assert torch.equal(cosine[0], cosine[2])
    assert cosine[1].tolist() == [1.5] * 6 and sine[1].tolist() == [0.0] * 6
    assert torch.equal(cosine[:, :3], cosine[:, 3:])
    assert (
        cosine[0, 1].item()
        == torch.tensor(1.5 * math.cos(7 * rotation.inverse_frequencies[1].double())).float()
    )
    later, _ = table.of(torch.tensor([5000, 7]))
    assert torch.equal(later[1], cosine[0])
