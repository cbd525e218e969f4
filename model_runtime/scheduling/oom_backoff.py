"""How many tokens a batch may have: what running out of memory taught, and when to try more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakSet

SMALLEST_BUDGET = 32
"""Out of memory makes batches smaller down to here, in tokens; then one request is at fault."""

RETRY_CEILING_AFTER = 1000
"""Forwards after which a ceiling is tried again: memory may have been somebody else's."""


class _Failure(NamedTuple):
    """A batch that ran out of memory: what followed from it, and who was in it."""

    ceiling: int
    requests: WeakSet[object]


class OomBackoff:
    """Tokens fed to one forward at most.

    A batch that runs out of memory halves it, and that is remembered: the next one does not try
    again. Where a request turns out to fit at no size, whatever failed with it in the batch is no
    evidence any more.

    After many forwards twice as much is tried once. Where that fails, the wait is twice as long
    the next time, so the failures grow with the logarithm of the forwards; where it holds, a
    ceiling that has gone is climbed back step by step.

    Args:
        most: the operator's bound; it is never exceeded.

    Attributes:
        tokens: the budget of the next batch.
    """

    def __init__(self, most: int) -> None:
        self.tokens = most
        self._most = most
        self._failures: list[_Failure] = []
        self._forwards_since_oom = 0
        self._retry_after = RETRY_CEILING_AFTER
        self._on_trial = False

    def shrink(self, tokens: int, requests: Iterable[object]) -> bool:
        """A batch of so many tokens ran out of memory. False where none smaller is tried.

        Args:
            requests: those that it held a part of.
        """
        if tokens <= SMALLEST_BUDGET:
            return False
        self.tokens = max(SMALLEST_BUDGET, min(tokens, self.tokens) // 2)
        self._failures.append(_Failure(self.tokens, WeakSet(requests)))
        self._forwards_since_oom = 0
        self._on_trial = False
        return True

    def clear_culprit(self, culprit: object) -> None:
        """A request fits at no size, so it says nothing about what others fit."""
        self._failures = [item for item in self._failures if culprit not in item.requests]
        self.tokens = min((item.ceiling for item in self._failures), default=self._most)

    def worked(self, tokens: int) -> None:
        """A batch of so many tokens did not run out of memory."""
        if self._on_trial and tokens >= self.tokens:
            self._on_trial = False
            self._retry_after = RETRY_CEILING_AFTER
        self._forwards_since_oom += 1
        if self.tokens < self._most and self._forwards_since_oom >= self._retry_after:
            self.tokens = min(self._most, 2 * self.tokens)
            self._failures = [item for item in self._failures if item.ceiling >= self.tokens]
            self._forwards_since_oom = 0
            self._retry_after *= 2
            self._on_trial = True
