"""Answers to queries, kept by the digest of the query. In memory, within a budget of bytes."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields

from app.telemetry.cache_stats import ScoreCacheStats
from model_runtime import LogprobResult

NUMBER_BYTES = 32
"""What a float or an integer takes at most, as it is allocated."""

ENTRY_BYTES = 400
"""What an entry takes beside its result: digest, order, table, and what the result is wrapped in.

Measured; the table doubles when it is full, so this holds a half-empty one too."""

_FIELDS = tuple(field.name for field in fields(LogprobResult))


class ScoreCache:
    """The least recently used answer goes first. Lives on the event loop.

    Args:
        max_bytes: memory that keys and answers may take together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, tuple[LogprobResult, int]] = OrderedDict()
        self._hits = self._misses = self._shared = 0

    @property
    def enabled(self) -> bool:
        """Whether anything is ever kept."""
        return self._max_bytes > 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes) -> LogprobResult | None:
        """The answer, if it is kept; it counts as used now."""
        entry = self._entries.get(digest)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(digest)
        return entry[0]

    def put(self, digest: bytes, result: LogprobResult) -> None:
        """Keep an answer; older ones go until it fits. One larger than the budget is not kept."""
        self._forget(digest)
        size = entry_bytes(result)
        if size > self._max_bytes:
            return
        self._entries[digest] = (result, size)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._entries)))

    def record_shared(self, count: int) -> None:
        """Count queries that waited for an identical one."""
        self._shared += count

    def stats(self) -> ScoreCacheStats:
        """Counters and fill of this moment."""
        return ScoreCacheStats(self._hits, self._misses, self._shared, self._bytes)

    def _forget(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self._bytes -= entry[1]


def entry_bytes(result: LogprobResult) -> int:
    """Memory that an answer takes while it is kept, in bytes: an upper bound, and a close one."""
    return ENTRY_BYTES + sum(_held(getattr(result, name)) for name in _FIELDS)


def _held(values: Sequence[object]) -> int:
    """What a column of numbers, a list of listed tokens, or one of such lists takes.

    Listed tokens are all of one size, so that the first stands for the others.
    """
    if not values:
        return 0
    shell, first = sys.getsizeof(values), values[0]
    if not isinstance(first, tuple):
        return shell + len(values) * NUMBER_BYTES
    if hasattr(first, "_fields"):
        return shell + len(values) * _held(first)
    return shell + sum(_held(row) for row in values if isinstance(row, tuple))
