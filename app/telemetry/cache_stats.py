"""What the score cache has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScoreCacheStats:
    """Counters since start and the fill of this moment, for metrics.

    Attributes:
        hits: distinct queries of a request that were answered from the cache.
        misses: those that were looked for and not found.
        shared: those that waited for an identical one in flight instead of being asked.
        bytes: memory that the cache holds.
    """

    hits: int = 0
    misses: int = 0
    shared: int = 0
    bytes: int = 0
