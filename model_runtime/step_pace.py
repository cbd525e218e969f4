"""How much may ride along with decode steps, so that a step takes at most twice as long as alone.

A forward takes as long as everything in it. A few steps that share it with thousands of tokens
of scoring or prefill wait for all of them; so what rides along is bounded, by what was measured::

    steps alone            t
    with a little company  less than twice t: a little more the next time
    with too much          more than that: less the next time

The others lose nothing by it: the time that steps do not take is theirs, half of it at least.
"""

from __future__ import annotations

TARGET = 1.7
"""Times as long as alone; a little less than two, as forwards do not all take the same."""

FIRST, LEAST = 64, 8
"""Tokens that ride along at first, and at least, so that whoever waits goes on."""

FASTER, SLOWER = 1.25, 0.5
"""The largest changes from one batch to the next."""

PATIENCE = 64
"""Batches with company until the steps' own time is measured again, by a batch of them alone."""

SAME = 1.5
"""Numbers of steps that differ by less than this factor take about the same time."""


class StepPace:
    """The token budget of batches that hold steps of running searches."""

    def __init__(self) -> None:
        self._company = float(FIRST)
        self._alone_s = 0.0
        self._steps = 0
        self._batches = 0

    def budget(self, steps: int, most: int) -> int:
        """Tokens of the next batch at most.

        Args:
            steps: tokens that running searches ask next; they go first.
            most: what a batch may have in any case.
        """
        if not steps:
            return most
        if self._must_measure(steps):
            return min(most, steps)
        return min(most, steps + int(self._company))

    def observe(self, steps: int, tokens: int, seconds: float) -> None:
        """Learn from a batch of ``tokens``, ``steps`` of them of running searches."""
        if not steps:
            return
        if tokens <= steps:
            self._measured(steps, seconds)
            return
        self._batches += 1
        change = TARGET * self._alone_s / seconds if seconds > 0 else FASTER
        room = (tokens - steps) * min(max(change, SLOWER), FASTER)
        # A batch that was not full says nothing against a fuller one.
        if change < 1 or room > self._company:
            self._company = max(float(LEAST), room)

    def _must_measure(self, steps: int) -> bool:
        return self._batches >= PATIENCE or not self._known(steps)

    def _known(self, steps: int) -> bool:
        return max(steps, self._steps) <= SAME * min(steps, self._steps)

    def _measured(self, steps: int, seconds: float) -> None:
        known = self._known(steps)
        self._alone_s = (self._alone_s + seconds) / 2 if known else seconds
        self._steps, self._batches = steps, 0
