"""Which rows of a tensor: a range, used as it lies, or any rows, which are copied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RowIndex = slice | Tensor


def row_index(rows: Sequence[int], device: torch.device) -> RowIndex:
    """A range where ``rows`` ascend without a gap. At least one row."""
    first, stop = rows[0], rows[0] + len(rows)
    if rows[-1] == stop - 1 and all(map(int.__eq__, rows, range(first, stop))):
        return slice(first, stop)
    return torch.tensor(rows, device=device)


def read_rows(tensor: Tensor, rows: RowIndex) -> Tensor:
    """Rows of a tensor: a view of a range, else a copy."""
    return tensor[rows] if isinstance(rows, slice) else tensor.index_select(0, rows)


def write_rows(tensor: Tensor, rows: RowIndex, values: Tensor) -> None:
    """Write rows of a tensor."""
    if isinstance(rows, slice):
        tensor[rows] = values
    else:
        tensor.index_copy_(0, rows, values)
