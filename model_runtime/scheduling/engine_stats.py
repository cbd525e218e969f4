"""What an engine has done so far and does at this moment."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BATCH_SIZE_BOUNDS: Final = tuple(float(1 << power) for power in range(17))
"""Tokens fed to a forward: 1, 2, 4, ... 65,536."""
SECONDS_BOUNDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Seconds of a forward, and of the wait for the first one."""

Counts = tuple[int, ...]
"""How many values were at most as large as each of some bounds and larger than the one before; the
last number is of those beyond all bounds."""

NO_BATCH_SIZES: Final[Counts] = (0,) * (len(BATCH_SIZE_BOUNDS) + 1)
NO_SECONDS: Final[Counts] = (0,) * (len(SECONDS_BOUNDS) + 1)


def with_value(counts: Counts, bounds: Sequence[float], value: float) -> Counts:
    """``counts`` and one more value."""
    place = bisect_left(bounds, value)
    return (*counts[:place], counts[place] + 1, *counts[place + 1 :])


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since start and gauges of this moment, for metrics and health.

    Attributes:
        ready: a real forward has passed and new work is admitted.
        alive: the model thread has neither died nor been given up.
        stalled_s: seconds for which it was seen at one step, at least; 0 while it moves.
        waiting_requests, waiting_tokens: of which no forward has held a part: admitted, being
            tokenized, or in line for room.
        running_requests: of which a forward has held a part, and which are not finished.
        queued_requests: admitted and not finished.
        queued_tokens: the room that is taken in the queue: of what is admitted and not finished,
            or being tokenized.
        queued_seconds: about how long all work that waits or runs will take: the tokens that are
            left of it over those that forwards were fed in a second. Tokens that will be found in
            the cache count as others.
        batches, shared_batches: forwards so far; those that held several requests.
        batch_tokens: tokens fed so far.
        batch_requests: sum over forwards of the requests that each held.
        batch_size_counts: forwards by their tokens, within ``BATCH_SIZE_BOUNDS``.
        batch_seconds_counts: forwards by their seconds, within ``SECONDS_BOUNDS``.
        first_batches: requests that came into their first forward.
        queue_s: seconds that those had waited for it, from their admission.
        queue_seconds_counts: those requests by these seconds, within ``SECONDS_BOUNDS``.
        max_batch_tokens: tokens that a forward is fed at most.
        cached_tokens: tokens needed and found computed already.
        head_rows: rows that went through the head.
        non_finite_logits: parts of forwards that failed for want of usable probabilities.
        busy_s: seconds spent in forwards.
        cache_slots, cache_slots_used: size and fill of the KV cache, in tokens.
        cache_slots_pinned: tokens of it that the batch at hand reads or writes; all others may
            be evicted at any time.
        evicted_tokens: tokens that made room for others.
        cache_row_bytes: memory of what was answered about the rows of its tokens.
        memory_limit_bytes: what the process may take; 0 where it is not known.
    """

    ready: bool = False
    alive: bool = True
    stalled_s: float = 0.0
    waiting_requests: int = 0
    waiting_tokens: int = 0
    running_requests: int = 0
    queued_requests: int = 0
    queued_tokens: int = 0
    queued_seconds: float = 0.0
    batches: int = 0
    shared_batches: int = 0
    batch_tokens: int = 0
    batch_requests: int = 0
    batch_size_counts: Counts = NO_BATCH_SIZES
    batch_seconds_counts: Counts = NO_SECONDS
    first_batches: int = 0
    queue_s: float = 0.0
    queue_seconds_counts: Counts = NO_SECONDS
    max_batch_tokens: int = 0
    cached_tokens: int = 0
    head_rows: int = 0
    non_finite_logits: int = 0
    busy_s: float = 0.0
    cache_slots: int = 0
    cache_slots_used: int = 0
    cache_slots_pinned: int = 0
    evicted_tokens: int = 0
    cache_row_bytes: int = 0
    memory_limit_bytes: int = 0
