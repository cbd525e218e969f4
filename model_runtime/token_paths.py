"""What token paths begin with alike, and the order of many.

The order is found without keeping the interpreter's lock for long: one call of ``sorted`` for a
hundred thousand paths lets nobody else run for a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence

AT_ONCE = 2_048
"""Paths that are sorted by one call."""

DEEPEST = 16
"""Branchings at which paths are told apart; what is still alike behind them is sorted."""


def path_order(paths: Sequence[tuple[int, ...]]) -> list[int]:
    """Indices of the paths as they sort: shorter before longer, equal ones by index."""
    return _ordered(paths, list(range(len(paths))), 0, 0)


def _ordered(
    paths: Sequence[tuple[int, ...]], indices: list[int], depth: int, level: int
) -> list[int]:
    """Of paths that share their first ``depth`` tokens."""
    if len(indices) <= AT_ONCE or level == DEEPEST:
        return sorted(indices, key=lambda index: paths[index][depth:])
    depth = _shared(paths, indices, depth)
    order: list[int] = []
    behind: dict[int, list[int]] = {}
    for index in indices:
        path = paths[index]
        if len(path) == depth:
            order.append(index)
        else:
            behind.setdefault(path[depth], []).append(index)
    for token_id in sorted(behind):
        order += _ordered(paths, behind[token_id], depth + 1, level + 1)
    return order


def _shared(paths: Sequence[tuple[int, ...]], indices: Sequence[int], depth: int) -> int:
    """How many leading tokens paths share that are known to share ``depth``."""
    first = paths[indices[0]]
    stop = len(first)
    for index in indices:
        path = paths[index]
        stop = depth + common_prefix(first, path, depth, depth, stop)
        if stop == depth:
            break
    return stop


def common_prefix(
    one: Sequence[int],
    other: Sequence[int],
    first: int = 0,
    second: int = 0,
    stop: int | None = None,
) -> int:
    """How many tokens of ``one`` from ``first`` on equal those of ``other[second:stop]``.

    Both are tuples, or both lists. Slices are compared, halved where they differ: a loop takes ten
    times as long.
    """
    last = len(other) if stop is None else min(stop, len(other))
    same, end = 0, max(0, min(len(one) - first, last - second))
    if one[first : first + end] == other[second : second + end]:
        return end
    while end - same > 1:
        middle = (same + end) // 2
        if one[first + same : first + middle] == other[second + same : second + middle]:
            same = middle
        else:
            end = middle
    return same
