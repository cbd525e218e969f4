"""Answers to queries, kept by the digest of the query. In memory, within a budget of bytes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields

from cachetools import LRUCache

from app.telemetry.cache_stats import ScoreCacheStats
from model_runtime import LogprobResult, QueryResult

NUMBER_BYTES = 32
"""What a float or an integer takes at most, as it is allocated."""

ENTRY_BYTES = 440
"""What an entry takes beside its result: digest, order, table, and what the result is wrapped in.

Measured; tables double when they are full, so this holds half-empty ones too."""

_FIELDS = tuple(field.name for field in fields(LogprobResult))


class ScoreCache:
    """The least recently used answer goes first. Any thread may use it.

    Args:
        max_bytes: memory that keys and answers may take together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self.enabled = max_bytes > 0
        self._entries: LRUCache[bytes, LogprobResult] = LRUCache(max_bytes, entry_bytes)
        self._lock = threading.Lock()
        self._hits = self._misses = self._shared = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get_all(self, digests: Iterable[bytes]) -> dict[bytes, LogprobResult]:
        """The answers that are kept; they count as used now."""
        found: dict[bytes, LogprobResult] = {}
        if not self.enabled:
            return found
        for digest in digests:
            with self._lock:  # each time, so that nobody waits for a large request
                result = self._entries.get(digest)
                self._hits += result is not None
                self._misses += result is None
            if result is not None:
                found[digest] = result
        return found

    def put_all(self, results: Mapping[bytes, QueryResult]) -> None:
        """Keep answers, no errors; older ones go until they fit. One larger than all the memory is
        not kept."""
        for digest, result in results.items() if self.enabled else ():
            if isinstance(result, LogprobResult):
                with self._lock, suppress(ValueError):  # it is too large
                    self._entries.pop(digest, None)
                    self._entries[digest] = result

    def record_shared(self, count: int) -> None:
        """Count queries that waited for an identical one."""
        self._shared += count

    def stats(self) -> ScoreCacheStats:
        """Counters and fill of this moment."""
        held = int(self._entries.currsize)
        return ScoreCacheStats(self._hits, self._misses, self._shared, held)


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
