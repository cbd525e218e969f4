"""Rows by index: a range is a view, anything else a copy; both read and write the same rows."""

from __future__ import annotations

import pytest
import torch

from model_runtime.kernels.rows import read_rows, row_index, write_rows

CPU = torch.device("cpu")


@pytest.mark.parametrize("rows", [[3], [2, 3, 4], [4, 3, 2], [0, 2], [1, 1], [1, 3, 3], [0, 2, 2]])
def test_rows_are_read_and_written_by_their_numbers(rows: list[int]) -> None:
    """take() gives the rows in order and put() changes no other."""
    tensor = torch.arange(12.0).view(6, 2)
    index = row_index(rows, CPU)
    assert torch.equal(read_rows(tensor, index), tensor[torch.tensor(rows)])
    write_rows(tensor, index, torch.full((len(rows), 2), -1.0))
    changed = (tensor == -1.0).all(1).nonzero().squeeze(1).tolist()
    assert changed == sorted(set(rows))


def test_only_an_ascending_range_is_a_view() -> None:
    """A gap, a repetition or another order makes a copy."""
    assert row_index([2, 3, 4], CPU) == slice(2, 5)
    for rows in ([2, 4, 3], [2, 2, 4], [3, 2]):
        assert isinstance(row_index(rows, CPU), torch.Tensor)
