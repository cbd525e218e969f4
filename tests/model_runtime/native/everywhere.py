"""Runs operations under every instruction set that the processor has, and compares their bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model_runtime.native.library import InstructionSet, Operation, best_instruction_set, run

Written = Sequence[Tensor]


def everywhere(build: Callable[[], tuple[Sequence[Operation], Written]]) -> Written:
    """What the operations write, after comparing all instruction sets.

    Args:
        build: lays out the operations and fresh tensors for them to write to.
    """
    results = []
    for instruction_set in InstructionSet:
        if instruction_set <= best_instruction_set():
            operations, written = build()
            run(operations, instruction_set)
            results.append(written)
    for other in results[:-1]:
        for mine, best in zip(other, results[-1], strict=True):
            assert same_bits(mine, best)
    return results[-1]


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Zeros of either sign differ here; every NaN equals every NaN."""
    if one.dtype is not torch.float32:
        return torch.equal(one, other)
    nans = one.isnan() & other.isnan()
    alike = one.contiguous().view(torch.int32) == other.contiguous().view(torch.int32)
    return bool((alike | nans).all())


def drawn(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
