"""A long list of candidates cut into parts that can be asked about one by one.

What a list says of pairs (which candidate begins which) must not be lost at a cut. In sorted order
the texts that begin with another follow it directly, so a cut separates only the few that are open
there, and these are sent along with the next part as well::

    sorted   " a"  " ab" | " abc"  " b"       cut after " ab", which begins " abc"
    parts    " a"  " ab"
             " a"  " ab"  " abc"  " b"        for the first two part 0 answers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

Key = str | tuple[int, ...]
"""A candidate: text, or token ids."""


@dataclass(frozen=True, slots=True)
class Part:
    """Candidates of one request.

    Attributes:
        keys: all of them, each once, in the order of the whole list.
        owned: those that this part answers for; the others are only sent along.
    """

    keys: tuple[Key, ...]
    owned: frozenset[Key]


def cut_into_parts(places: dict[Key, list[int]], size: int) -> list[Part]:
    """Parts that answer for at most ``size`` candidates each.

    Args:
        places: the indices of each distinct candidate in the whole list. All are text, or all
            are token ids.
        size: at least 1.
    """
    order: list[Key] = sorted(cast(Any, places))
    parts = []
    begun: list[Key] = []
    for begin in range(0, len(order), size):
        owned = order[begin : begin + size]
        _close(begun, owned[0])
        keys = sorted([*begun, *owned], key=lambda key: places[key][0])
        parts.append(Part(tuple(keys), frozenset(owned)))
        for key in owned:
            _close(begun, key)
            begun.append(key)
    return parts


def _close(begun: list[Key], key: Key) -> None:
    """Drop from the stack what does not begin ``key``: it begins nothing behind it either."""
    while begun and key[: len(begun[-1])] != begun[-1]:
        begun.pop()
