"""Whether the model thread still makes steps, as others see it.

A forward that hangs cannot say so. So the model thread marks each of its steps, and whoever
watches looks whether there are new marks, ten times in the limit::

    looks without a new mark   0        1 .. 9                    10
                               moving   stalled: send no work     given up

Looks are counted, not seconds: a process that was paused as a whole, as containers are, finds its
threads where it left them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LOOKS = 10
"""In a row without a step; then the thread is given up."""


class Watchdog:
    """Counts how long the model thread has been at one step.

    Args:
        limit_s: seconds that one step may take; 0 for any time.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._busy = False
        self._steps = 0
        self._seen = 0
        self._still = 0

    # On the model thread.

    def mark(self) -> None:
        """A step begins."""
        self._steps += 1
        self._busy = True

    def rest(self) -> None:
        """There is nothing to do until the next mark, however long that takes."""
        self._busy = False

    def watch(self, step: Callable[P, R]) -> Callable[P, R]:
        """The same step, marked at its beginning and at its end."""

        def watched(*args: P.args, **kwargs: P.kwargs) -> R:
            self.mark()
            try:
                return step(*args, **kwargs)
            finally:
                self.mark()

        return watched

    # On the event loop.

    @property
    def look_s(self) -> float:
        """Seconds from one look to the next."""
        return self.limit_s / LOOKS

    def look(self) -> bool:
        """Look for a new mark; True where the thread is to be given up."""
        self._still = 0 if self._moved else self._still + 1
        self._seen = self._steps
        return self._still >= LOOKS

    # On any thread.

    @property
    def stalled_s(self) -> float:
        """Seconds for which it was seen at one step, at least; 0 once it has made another."""
        return 0.0 if self._moved else self._still * self.look_s

    @property
    def _moved(self) -> bool:
        return not self._busy or self._steps != self._seen
