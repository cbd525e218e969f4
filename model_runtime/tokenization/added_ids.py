"""What a tokenizer's own rule puts around texts, read off one encoding.

An encoding names, for each of its ids, which of its texts it is from: 0, 1, or None for an id that
the rule has added.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

Ids = tuple[int, ...]


def leading_ids(ids: Sequence[int], texts: Sequence[int | None]) -> Ids:
    """What is added before the first text."""
    added = takewhile(lambda pair: pair[1] is None, zip(ids, texts, strict=True))
    return tuple(token_id for token_id, _ in added)


def pair_ids(ids: Sequence[int], texts: Sequence[int | None]) -> tuple[Ids, Ids, Ids]:
    """What is added before, between and behind the two texts of a pair."""
    places = [[place for place, text in enumerate(texts) if text == side] for side in (0, 1)]
    (start, *_, stop), (other, *_, end) = ([*one, *one] for one in places)
    return tuple(ids[:start]), tuple(ids[stop + 1 : other]), tuple(ids[end + 1 :])
