"""The sizes that attention works in, and how key spans are cut to them.

A row's keys are cut by blocks, a suffix span is padded to steps: these set the shapes that a row's
arithmetic sees, hence its bits. The others only say how much is computed in one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model_runtime.batching.batch import KeySpan

BLOCK_SIZE = 64
"""Positions in a block; a row's prefix span ends one block before its own."""

KEY_STEP = 32
"""A suffix span's keys are padded to multiples of this."""

ROW_STEP = 8
"""Heights of products are multiples of this, or of what the served heads need instead."""

GATHERED_KEYS = 16_384
"""Keys that are copied together for one call at most; it bounds the memory of a batch."""


def padded_keys(keys: int) -> int:
    return -(-keys // KEY_STEP) * KEY_STEP


def padded_rows(rows: int, step: int = ROW_STEP) -> int:
    return -(-rows // step) * step


def suffix_steps(span: KeySpan, positions: Sequence[int]) -> Iterator[tuple[int, range]]:
    """A suffix span's rows apart by the key step that they end in.

    Yields:
        How many of the span's keys the last of the rows sees, and the rows.
    """
    (rows,) = span.rows
    while rows:
        first = positions[rows[0]] - span.start
        part = rows[: padded_keys(first + 1) - first]
        yield first + len(part), part
        rows = rows[len(part) :]
