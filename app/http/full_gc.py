"""Full garbage collections wait until no large request is in hand.

One goes through all objects that were made since the start, and no thread runs meanwhile. A request
of a hundred thousand candidates is millions of objects: it would be gone through again and again
while it grows, for half a second each time, and its objects are freed by their counts in any case.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

DEFERRED_THRESHOLD: Final = 1_000
"""Collections of the middle generation between two full ones while they are put off. With Python's
own thresholds it is a full one for each seven million objects that have come and not gone: where
large requests follow each other without end, what only a full one frees is bounded."""


class FullGcDeferral:
    """Lives on the event loop. The thresholds are those of the process."""

    def __init__(self) -> None:
        self._large = 0
        self._usual = gc.get_threshold()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, and inside whatever else puts them off at the same time."""
        if not self._large:
            self._usual = gc.get_threshold()
            gc.set_threshold(*self._usual[:2], DEFERRED_THRESHOLD)
        self._large += 1
        try:
            yield
        finally:
            self._large -= 1
            if not self._large:
                gc.set_threshold(*self._usual)
