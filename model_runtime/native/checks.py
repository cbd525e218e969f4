"""What the kernels take on trust is checked here: types, shapes, contiguity, ranges of indices.

Every check raises ValueError with the name of the argument and what it must be.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _plain(name: str, tensor: Tensor, dtype: torch.dtype, dims: int) -> None:
    if tensor.device.type != "cpu" or tensor.dtype is not dtype or tensor.dim() != dims:
        found = f"{tensor.dtype} of {tensor.dim()} dimensions on {tensor.device.type}"
        raise ValueError(f"{name} must be {dtype} of {dims} dimensions on cpu, is {found}")
    if dims and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(f"{name} must be contiguous in its last dimension")


def check_rows(name: str, tensor: Tensor, width: int) -> int:
    """A float32 matrix of that width; how many rows it has, at least one."""
    _plain(name, tensor, torch.float32, 2)
    if tensor.shape[0] < 1 or width < 1:
        raise ValueError(f"{name} has no rows or columns")
    check_shape(name, tensor, tensor.shape[0], width)
    return tensor.shape[0]


def check_shape(name: str, tensor: Tensor, rows: int, width: int) -> None:
    """A float32 matrix of that shape."""
    _plain(name, tensor, torch.float32, 2)
    if tensor.shape != (rows, width):
        raise ValueError(f"{name} must be [{rows}, {width}], is {list(tensor.shape)}")


def vector_address(name: str, tensor: Tensor | None, width: int) -> int | None:
    """Of a contiguous float32 vector of that length; None for none."""
    if tensor is None:
        return None
    _plain(name, tensor, torch.float32, 1)
    if len(tensor) != width:
        raise ValueError(f"{name} must be [{width}], is [{len(tensor)}]")
    return tensor.data_ptr()


def flags_address(name: str, tensor: Tensor | None, count: int) -> int | None:
    """Of a contiguous uint8 vector of that length; None for none."""
    if tensor is None:
        return None
    _plain(name, tensor, torch.uint8, 1)
    if len(tensor) != count:
        raise ValueError(f"{name} must be [{count}], is [{len(tensor)}]")
    return tensor.data_ptr()


def check_angles(cosine: Tensor | None, sine: Tensor | None, rows: int, dim: int) -> int:
    """Cosines and sines of rows, or neither; how many columns of a head of ``dim`` they rotate."""
    if cosine is None or sine is None:
        if cosine is not sine:
            raise ValueError("cosine and sine come together")
        return 0
    rotated = cosine.shape[-1]
    if rotated % 2 or not 0 < rotated <= dim:
        raise ValueError(f"{rotated} columns of a head of {dim} cannot be rotated")
    check_shape("cosine", cosine, rows, rotated)
    check_shape("sine", sine, rows, rotated)
    if cosine.stride(0) != sine.stride(0):
        raise ValueError("cosine and sine must lie alike")
    return rotated


def check_stored(keys: Tensor, values: Tensor) -> tuple[int, int, int]:
    """Keys and values of slots: how many slots, heads and columns of a head."""
    for name, tensor in (("keys", keys), ("values", values)):
        _plain(name, tensor, torch.float32, 3)
        if not tensor.is_contiguous() or tensor.shape != keys.shape:
            raise ValueError(f"{name} must be contiguous, and keys and values of one shape")
    slots, heads, dim = keys.shape
    return slots, heads, dim


def check_indices(name: str, tensor: Tensor, count: int | None, stop: int) -> None:
    """int64 numbers below ``stop``, ``count`` of them unless that is None."""
    _plain(name, tensor, torch.int64, 1)
    if count is not None and len(tensor) != count:
        raise ValueError(f"{name} must be [{count}], is [{len(tensor)}]")
    if len(tensor) and not 0 <= int(tensor.min()) <= int(tensor.max()) < stop:
        raise ValueError(f"{name} must lie within 0 and {stop - 1}")


def check_spans(spans: Tensor, rows: int, slots: int) -> None:
    """[rows, 4] int64 that lie within so many slots."""
    _plain("spans", spans, torch.int64, 2)
    if spans.shape != (rows, 4) or not spans.is_contiguous():
        raise ValueError(f"spans must be [{rows}, 4] and contiguous, is {list(spans.shape)}")
    ends = spans[:, 0::2] + spans[:, 1::2]
    if int(spans.min()) < 0 or int(spans[:, 1].min()) < 1 or int(ends.max()) > slots:
        raise ValueError(f"spans must lie within {slots} slots, and near ones hold a key")
