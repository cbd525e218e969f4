"""How much may wait: every admitted request holds its cost in tokens until it is finished.

The cost is the tokens that are fed, and one more for each 32 rows that are asked of them. Before
a request is tokenized its cost is not known, and it may turn out that others ask the same. So it is
refused where the queue is nearly full, and what waits to be tokenized has a bound of its own::

    check_room, reserve: the least cost ──> tokenized ──> admit: the cost ──> finished: free
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from model_runtime.batching.trie import ROWS_PER_TOKEN
from model_runtime.errors import EngineOverloaded, RequestTooLarge
from model_runtime.types import Priority

DEFAULT_TOKENS_PER_S = 1000.0
"""Taken for the speed of the model until a forward has been measured."""

SHORTEST_RETRY_S = 0.1
"""No client is told to come back sooner."""

MEMORY = 0.9
"""Weight that a measurement keeps when the next one arrives."""

BULK_QUEUE_SHARE = 0.75
"""The part of the queue that bulk work may fill; the rest stays free for interactive work."""

UNREAD_FROM = 15 / 16
"""The part of the queue from which on a request is refused without a look at it. To read and to
tokenize what is refused anyway takes time that an overloaded server needs for what it has let in;
what costs no more than the rest of the queue and would have fitted is tried again like all others.
Where one request alone holds more than half of the queue, small ones beside it are looked at.
"""

MAX_UNTOKENIZED = 1 << 17
"""Tokens that may wait to be tokenized, some tenths of a second for a thread."""


class Throughput:
    """How fast forwards are; recent and large ones count most.

    Attributes:
        tokens_per_s: tokens fed per second of forward. Any thread may read it.
    """

    def __init__(self) -> None:
        self.tokens_per_s = DEFAULT_TOKENS_PER_S
        self._tokens = 0.0
        self._seconds = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Take a forward into account; one too short for the clock says nothing."""
        if tokens > 0 and seconds > 0:
            self._tokens = self._tokens * MEMORY + tokens
            self._seconds = self._seconds * MEMORY + seconds
            self.tokens_per_s = self._tokens / self._seconds


class Admission:
    """The tokens admitted and not finished. Changed on the event loop only.

    Args:
        max_tokens: the most that may be admitted at a time, in tokens.
        max_untokenized: the most that may wait to be tokenized, in tokens that it has at least.
    """

    def __init__(self, max_tokens: int, max_untokenized: int = MAX_UNTOKENIZED) -> None:
        self._max_tokens = max_tokens
        self._max_untokenized = max_untokenized
        self._limit = {
            Priority.INTERACTIVE: max_tokens,
            Priority.BULK: int(max_tokens * BULK_QUEUE_SHARE),
        }
        self._held = dict.fromkeys(Priority, 0)
        self._untokenized = 0
        self._largest = 0

    @property
    def queued_tokens(self) -> int:
        """Admitted and not finished, and what waits to be tokenized."""
        return self._admitted + self._untokenized

    @property
    def _admitted(self) -> int:
        return sum(self._held.values())

    def admit(self, cost: int, priority: Priority, tokens_per_s: float) -> None:
        """Hold ``cost`` tokens, or refuse at once.

        Raises:
            RequestTooLarge: the cost exceeds what the class may ever hold.
            EngineOverloaded: there is no room now; says when enough is worked off.
        """
        limit = self._limit[priority]
        if cost > limit:
            raise RequestTooLarge(
                f"the request needs {cost} tokens of work, where {ROWS_PER_TOKEN} scored positions "
                f"count as one; {priority} requests may need {limit}, by max_queue_tokens"
            )
        missing = self._missing(cost, priority)
        if missing > 0:
            raise self._overloaded(missing / tokens_per_s)
        self._held[priority] += cost
        if self._is_half(cost):
            self._largest = cost

    def check_room(self, priority: Priority, tokens_per_s: float) -> None:
        """Refuse a request of unknown cost where the queue is full, or nearly so.

        Raises:
            EngineOverloaded: says when it will be less full.
        """
        missing: float = self._missing(1, priority)
        if not self._largest:
            over_class = self._held[priority] - self._limit[priority] * UNREAD_FROM
            missing = max(over_class, self._admitted - self._max_tokens * UNREAD_FROM)
        if missing > 0:
            raise self._overloaded(missing / tokens_per_s)

    @contextmanager
    def reserve(self, least: int, tokens_per_s: float) -> Iterator[None]:
        """Count ``least`` tokens as waiting to be tokenized while the block runs.

        Raises:
            EngineOverloaded: too many wait already. One alone is never refused.
        """
        missing = self._untokenized + least - self._max_untokenized
        if self._untokenized and missing > 0:
            raise EngineOverloaded(
                f"{self._untokenized} tokens wait to be tokenized",
                retry_after_s=max(SHORTEST_RETRY_S, missing / tokens_per_s),
            )
        self._untokenized += least
        try:
            yield
        finally:
            self._untokenized -= least

    def free(self, cost: int, priority: Priority) -> None:
        """Give back what ``admit`` took."""
        self._held[priority] -= cost
        if self._is_half(cost):
            self._largest = 0

    def _is_half(self, cost: int) -> bool:
        """Whether it is more than half of the queue, which one request at a time can be."""
        return 2 * cost > self._max_tokens

    def _overloaded(self, wait_s: float) -> EngineOverloaded:
        return EngineOverloaded(
            f"the queue is full: it holds {self._admitted} of {self._max_tokens} tokens",
            retry_after_s=max(SHORTEST_RETRY_S, wait_s),
        )

    def _missing(self, cost: int, priority: Priority) -> int:
        """Tokens to be worked off before the cost fits its class and the queue."""
        over_class = self._held[priority] + cost - self._limit[priority]
        over_all = self._admitted + cost - self._max_tokens
        return max(over_class, over_all)
