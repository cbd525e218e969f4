"""The compiled kernels as Python sees them: ``native.h``, declared once more.

The library is plain C without Python's interface. ``ctypes`` calls it without the interpreter's
lock. Where the package was built without a compiler there is no library, and ``load`` says so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int, c_int32, c_int64, c_uint64, c_void_p
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

from torch import Tensor

PANEL = 64
"""Columns of a packed weight that lie together."""

MOST_DIM = 256
"""Columns of an attention head."""

MOST_GROUP = 16
"""Query heads that share a head of keys."""


NOT_BUILT: Final = "no C compiler that could build them was there when the package was installed"
"""Why there is no library, where there is none."""

STALE: Final = "the compiled library is of other sources; install the package again"
"""Why a library is not used."""

VERSION: Final = 1
"""Of what the kernels compute, as ``native.h`` has it."""


class NativeUnavailable(RuntimeError):
    """There is no compiled library, or it cannot do what it is asked."""


class InstructionSet(IntEnum):
    """What the kernels may use; the bits are the same in all."""

    PORTABLE = 0
    AVX2 = 1
    AVX512 = 2


class Kind(IntEnum):
    """What an operation does."""

    PRODUCT = 0
    NORM = 1
    GATED = 2
    ROTATION = 3
    ATTENTION = 4
    REDUCTION = 5


def _fields(**kinds: type) -> list[tuple[str, type]]:
    return list(kinds.items())


class ProductArguments(ctypes.Structure):
    _fields_ = _fields(
        x=c_void_p,
        x_stride=c_int64,
        weight=c_void_p,
        weight_is_bf16=c_int64,
        bias=c_void_p,
        y=c_void_p,
        y_stride=c_int64,
        rows=c_int64,
        in_features=c_int64,
        out_features=c_int64,
        block=c_int64,
    )


class NormArguments(ctypes.Structure):
    _fields_ = _fields(
        x=c_void_p,
        x_stride=c_int64,
        add=c_void_p,
        add_stride=c_int64,
        weight=c_void_p,
        bias=c_void_p,
        y=c_void_p,
        y_stride=c_int64,
        rows=c_int64,
        width=c_int64,
        epsilon=c_float,
        centred=c_int32,
    )


class GatedArguments(ctypes.Structure):
    _fields_ = _fields(
        gate=c_void_p,
        gate_stride=c_int64,
        up=c_void_p,
        up_stride=c_int64,
        y=c_void_p,
        y_stride=c_int64,
        rows=c_int64,
        width=c_int64,
        activation=c_int64,
    )


class RotationArguments(ctypes.Structure):
    _fields_ = _fields(
        qkv=c_void_p,
        qkv_stride=c_int64,
        cosine=c_void_p,
        sine=c_void_p,
        angle_stride=c_int64,
        query_norm=c_void_p,
        key_norm=c_void_p,
        slots=c_void_p,
        keys=c_void_p,
        values=c_void_p,
        slot_stride=c_int64,
        bad=c_void_p,
        rows=c_int64,
        heads=c_int64,
        kv_heads=c_int64,
        dim=c_int64,
        rotated=c_int64,
        epsilon=c_float,
    )


class AttentionArguments(ctypes.Structure):
    _fields_ = _fields(
        query=c_void_p,
        query_stride=c_int64,
        keys=c_void_p,
        values=c_void_p,
        slot_stride=c_int64,
        slots=c_void_p,
        spans=c_void_p,
        y=c_void_p,
        y_stride=c_int64,
        rows=c_int64,
        kv_heads=c_int64,
        group=c_int64,
        dim=c_int64,
        window=c_int64,
        scaling=c_float,
        softcap=c_float,
    )


class ReductionArguments(ctypes.Structure):
    _fields_ = _fields(
        logits=c_void_p,
        logits_stride=c_int64,
        rows=c_int64,
        vocab=c_int64,
        log_sum=c_void_p,
        entropies=c_void_p,
        chosen_first=c_void_p,
        chosen=c_void_p,
        logprobs=c_void_p,
        ranks=c_void_p,
        top=c_int64,
        top_logits=c_void_p,
        top_ids=c_void_p,
        softcap=c_float,
    )


_ARGUMENTS = (
    *(ProductArguments, NormArguments, GatedArguments),
    *(RotationArguments, AttentionArguments, ReductionArguments),
)


class _COperation(ctypes.Structure):
    _fields_ = _fields(kind=c_int64, arguments=c_void_p)


@dataclass(frozen=True, slots=True)
class Operation:
    """One kernel with its arguments, whose tensors live as long as it does.

    Attributes:
        kind: which kernel.
        arguments: addresses, strides and sizes.
        tensors: what the addresses point into.
    """

    kind: Kind
    arguments: ctypes.Structure
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, kind: Kind, arguments: ctypes.Structure, *tensors: Tensor | None) -> Operation:
        """An operation that holds the tensors that are there."""
        return cls(kind, arguments, tuple(tensor for tensor in tensors if tensor is not None))


class Program:
    """Operations one after the other, laid out for the library once.

    Their tensors' contents may change between two runs, and how many rows they have.
    """

    def __init__(
        self, operations: Sequence[Operation], instruction_set: InstructionSet | None = None
    ) -> None:
        """Lay out operations, each of which may read what the ones before it have written.

        Args:
            operations: at least one.
            instruction_set: the best that the processor has, unless one is forced.

        Raises:
            NativeUnavailable: there is no library, or the processor lacks the instruction set.
        """
        self._library, best = load(), best_instruction_set()
        chosen = best if instruction_set is None else instruction_set
        if chosen > best:
            raise NativeUnavailable(f"this processor has {best.name}, not {chosen.name}")
        self._instruction_set = int(chosen)
        self._operations = tuple(operations)
        self._listed = (_COperation * len(operations))(
            *(_COperation(op.kind, ctypes.addressof(op.arguments)) for op in operations)
        )

    def set_rows(self, rows: int) -> None:
        """Let every operation have so many rows, at most as many as its tensors."""
        for operation in self._operations:
            operation.arguments.rows = rows

    def run(self, first: int = 0, stop: int | None = None) -> None:
        """Run the operations from ``first`` on up to ``stop``, on the threads of ``use_threads``.

        In one call, without the interpreter's lock.
        """
        last = len(self._operations) if stop is None else stop
        begin = ctypes.byref(self._listed, first * ctypes.sizeof(_COperation))
        refused = self._library.native_run(begin, last - first, self._instruction_set)
        if refused:
            raise ValueError(f"operation {first + refused - 1} has too many rows")


def run(operations: Sequence[Operation], instruction_set: InstructionSet | None = None) -> None:
    """Run operations once; see ``Program``."""
    Program(operations, instruction_set).run()


def use_threads(count: int) -> int:
    """Let ``run`` work on so many threads, the caller's among them; how many there are then."""
    return int(load().native_threads(count))


@lru_cache
def best_instruction_set() -> InstructionSet:
    """The widest one of this processor."""
    return InstructionSet(load().native_best())


def available() -> bool:
    """Whether there is a library, of these sources."""
    return why_unavailable() is None


def why_unavailable() -> str | None:
    """``NOT_BUILT`` or ``STALE``; None where there is a library."""
    path = _path()
    if path is None:
        return NOT_BUILT
    return None if _version_of(path) == _expected_version() else STALE


@lru_cache
def _version_of(path: Path) -> int | None:
    """None where the file is no library, or an older one without a version."""
    try:
        library = ctypes.CDLL(str(path))
        library.native_version.restype = c_uint64
        return int(library.native_version())
    except (OSError, AttributeError):
        return None


def _expected_version() -> int:
    """Of ``VERSION`` and the sizes of all arguments."""
    version = VERSION
    for kind in _ARGUMENTS:
        version = (version * 509 + ctypes.sizeof(kind)) % 2**64
    return version


@lru_cache
def load() -> ctypes.CDLL:
    """The library.

    Raises:
        NativeUnavailable: it was not built, or is of other sources.
    """
    path, reason = _path(), why_unavailable()
    if path is None or reason is not None:
        raise NativeUnavailable(f"there are no native kernels: {reason}")
    library = ctypes.CDLL(str(path))
    library.native_best.argtypes = []
    library.native_threads.argtypes = [c_int]
    library.native_run.argtypes = [c_void_p, c_int64, c_int]
    return library


def _path() -> Path | None:
    places = (Path(__file__).with_name(f"_kernels{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((place for place in places if place.is_file()), None)
