"""How much may ride along with decode steps, so that a step takes at most twice as long as alone.

A forward takes as long as everything in it. A few steps that share it with thousands of tokens
of scoring or prefill wait for all of them; so what rides along is bounded, by what was measured::

    steps alone            t
    with a few others      less than twice t: a little more the next time
    with too much          more than that: less the next time

The others go on the while, with about a third of the time.
"""

from __future__ import annotations

import math

TARGET = 1.4
"""Times as long as alone. Less than two, as forwards do not all take the same, and as a step waits
for what is done between them as well."""

FIRST, LEAST = 64, 8
"""Tokens that ride along at first, and at least, so that whoever waits goes on."""

FASTER, SLOWER = 1.25, 0.5
"""The largest changes from one batch to the next."""

RECALIBRATE_AFTER = 64
"""Batches with others until the steps' own time is measured again, by a batch of them alone."""

SAME = 1.5
"""Numbers of steps within such a factor take about the same time; it is kept for each size."""


class DecodePacer:
    """The token budget of batches that hold steps of running searches."""

    def __init__(self) -> None:
        self._co_batched_tokens = float(FIRST)
        self._alone_s: dict[int, float] = {}
        self._since: dict[int, int] = {}

    def budget(self, steps: int, most: int) -> int:
        """Tokens of the next batch at most.

        Args:
            steps: tokens that running searches ask next; they go first.
            most: what a batch may have in any case.
        """
        if not steps:
            return most
        size = _size(steps)
        if size not in self._alone_s or self._since[size] >= RECALIBRATE_AFTER:
            return min(most, steps)
        return min(most, steps + int(self._co_batched_tokens))

    def observe(self, steps: int, tokens: int, seconds: float) -> None:
        """Learn from a batch of ``tokens``, ``steps`` of them of running searches."""
        if not steps:
            return
        size = _size(steps)
        alone = self._alone_s.get(size)
        if tokens <= steps:
            self._alone_s[size] = seconds if alone is None else (alone + seconds) / 2
            self._since[size] = 0
        elif alone is not None:
            self._since[size] += 1
            self._adapt(tokens - steps, TARGET * alone / seconds if seconds > 0 else FASTER)

    def _adapt(self, co_batched_tokens: int, change: float) -> None:
        room = co_batched_tokens * min(max(change, SLOWER), FASTER)
        # A batch that was not full says nothing against a fuller one.
        if change < 1 or room > self._co_batched_tokens:
            self._co_batched_tokens = max(float(LEAST), room)


def _size(steps: int) -> int:
    """The class of numbers of steps that take about the same time."""
    return round(math.log(steps, SAME))
