"""How the C library keeps the memory that a forward frees.

A forward allocates and frees the same large tensors layer by layer. By default glibc gives them
back to the system and has them faulted in again, page by page: a tenth of a forward.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
"""Names of glibc's mallopt(3)."""

KEPT_BYTES = 512 << 20
"""Free memory at the end of the heap that stays with the process."""

LARGEST_KEPT = 256 << 20
LARGEST_KEPT_BEFORE = 32 << 20
"""Bytes of one block that is kept; the second is all that an older glibc takes."""


def tune_malloc() -> bool:
    """Keep what is freed for the next forward; False where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    if mallopt(_MMAP_THRESHOLD, LARGEST_KEPT) != 1:
        mallopt(_MMAP_THRESHOLD, LARGEST_KEPT_BEFORE)
    # The model's thread must share the one heap: those of other threads end at 64 MB.
    settings = ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, KEPT_BYTES), (_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)


def give_back_freed_memory() -> None:
    """To the system, for once: what the checks of the start took is of no use to a forward."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
