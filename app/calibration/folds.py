"""Decisions split into parts: always the same way, whatever their order means."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

FOLDS: Final = 5
"""Parts of a cross-validation."""

_SEED: Final = 0


def halves(items: Sequence[T]) -> tuple[list[T], list[T]]:
    """Two parts of equal size, the first one larger by one where it must be."""
    mixed = _mixed(items)
    return mixed[::2], mixed[1::2]


def folds(items: Sequence[T], count: int = FOLDS) -> Iterator[tuple[list[T], list[T]]]:
    """``count`` times all items but those of one part, and that part; each item is held out once.

    Args:
        items: ``count`` of them at least.
    """
    mixed = _mixed(items)
    for part in range(count):
        rest = [one for place, one in enumerate(mixed) if place % count != part]
        yield rest, mixed[part::count]


def _mixed(items: Sequence[T]) -> list[T]:
    """In an order that is a function of their number alone."""
    mixed = list(items)
    random.Random(_SEED).shuffle(mixed)
    return mixed
