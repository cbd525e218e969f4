"""How much may wait: every admitted request holds its cost in tokens until it is finished.

The cost is the tokens that are fed, and one more for each 32 rows that are asked of them. Before
a request is tokenized its cost is not known, and it may turn out that others ask the same. So it is
refused where the queue is nearly full, and what waits to be tokenized has a bound of its own::

    reserve: the least cost ──> tokenized ──> enter: the cost ──> finished: free

Where there is no room a request is refused, or it waits in the line of its class, as it wants.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from model_runtime.batching.trie import QUERIES_PER_TOKEN, ROWS_PER_TOKEN
from model_runtime.errors import EngineOverloaded, RequestTooLarge
from model_runtime.scheduling.waiting_line import WaitingLine
from model_runtime.types import Priority, RequestOptions

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
        throughput: how fast they are worked off.
        check_open: raises while no work is taken, whether there is room or not.
        max_untokenized: the most that may wait to be tokenized, in tokens that it has at least.
    """

    def __init__(
        self,
        max_tokens: int,
        throughput: Throughput,
        check_open: Callable[[], None] = lambda: None,
        max_untokenized: int = MAX_UNTOKENIZED,
    ) -> None:
        self._max_tokens = max_tokens
        self._throughput = throughput
        self._check_open = check_open
        self._max_untokenized = max_untokenized
        self._limit = {
            Priority.INTERACTIVE: max_tokens,
            Priority.BULK: int(max_tokens * BULK_QUEUE_SHARE),
        }
        self._held = dict.fromkeys(Priority, 0)
        self._untokenized = 0
        self._tokenizing = 0
        self._largest = 0
        self._lines = {priority: WaitingLine() for priority in Priority}

    @property
    def queued_tokens(self) -> int:
        """Admitted and not finished, and what waits to be tokenized."""
        return self._admitted + self._untokenized

    @property
    def waiting_requests(self) -> int:
        """What is not admitted yet: being tokenized, or in line for room."""
        return self._tokenizing + sum(line.requests for line in self._lines.values())

    @property
    def waiting_tokens(self) -> int:
        """What those cost, or cost at least."""
        return self._untokenized + sum(line.tokens for line in self._lines.values())

    @property
    def _admitted(self) -> int:
        return sum(self._held.values())

    async def enter(self, cost: int, options: RequestOptions) -> None:
        """Hold ``cost`` tokens, now or as soon as there is room.

        Raises:
            RequestTooLarge: the cost exceeds what the class may ever hold.
            EngineOverloaded: there is no room; says when enough is worked off.
            DeadlineExceeded: the deadline passed before there was room.
            ChainruleError: what ``check_open`` raises.
        """

        def attempt() -> None:
            self.admit(cost, options.priority)

        self._check_cost(cost, options.priority)
        async with self._lines[options.priority].turn(attempt, options, cost, tokenized=True):
            pass

    def admit(self, cost: int, priority: Priority) -> None:
        """``enter`` of a request that does not wait."""
        self._check_open()
        self._check_cost(cost, priority)
        missing = self._missing(cost, priority)
        if missing > 0:
            raise self._overloaded(missing)
        self._held[priority] += cost
        if self._is_half(cost):
            self._largest = cost

    def check_room(self, priority: Priority) -> None:
        """Refuse a request of unknown cost where the queue is full, or nearly so.

        Raises:
            EngineOverloaded: says when it will be less full.
        """
        missing: float = self._missing(1, priority)
        if not self._largest:
            over_class = self._held[priority] - self._limit[priority] * UNREAD_FROM
            missing = max(over_class, self._admitted - self._max_tokens * UNREAD_FROM)
        if missing > 0:
            raise self._overloaded(missing)

    @asynccontextmanager
    async def reserve(
        self, least: int, options: RequestOptions, *, check_room: bool = True
    ) -> AsyncIterator[None]:
        """Count ``least`` tokens as waiting to be tokenized while the block runs.

        Args:
            least: tokens that the request has at least.
            options: whether it waits for room, and for how long.
            check_room: whether the queue must have room as well.

        Raises:
            EngineOverloaded: the queue has none, or too much waits to be tokenized already; a
                request alone is never too much.
            DeadlineExceeded: the deadline passed before there was room.
            ChainruleError: what ``check_open`` raises.
        """

        def attempt() -> None:
            self._check_open()
            if check_room:
                self.check_room(options.priority)
            missing = self._untokenized + least - self._max_untokenized
            if self._untokenized and missing > 0:
                raise self._refusal(f"{self._untokenized} tokens wait to be tokenized", missing)
            self._untokenized += least
            self._tokenizing += 1

        async with self._lines[options.priority].turn(attempt, options, least, tokenized=False):
            try:
                yield
            finally:
                self._untokenized -= least
                self._tokenizing -= 1
                self.wake()

    def free(self, cost: int, priority: Priority) -> None:
        """Give back what ``enter`` took."""
        self._held[priority] -= cost
        if self._is_half(cost):
            self._largest = 0
        self.wake()

    def wake(self) -> None:
        """Let those that wait see what has changed."""
        for line in self._lines.values():
            line.wake()

    def _check_cost(self, cost: int, priority: Priority) -> None:
        limit = self._limit[priority]
        if cost > limit:
            raise RequestTooLarge(
                f"the request needs {cost} tokens of work, where {ROWS_PER_TOKEN} scored positions "
                f"count as one, and {QUERIES_PER_TOKEN} paths; {priority} requests may need "
                f"{limit}, by max_queue_tokens"
            )

    def _is_half(self, cost: int) -> bool:
        """Whether it is more than half of the queue, which one request at a time can be."""
        return 2 * cost > self._max_tokens

    def _overloaded(self, missing: float) -> EngineOverloaded:
        message = f"the queue is full: it holds {self._admitted} of {self._max_tokens} tokens"
        return self._refusal(message, missing)

    def _refusal(self, message: str, missing: float) -> EngineOverloaded:
        retry_after_s = max(SHORTEST_RETRY_S, missing / self._throughput.tokens_per_s)
        return EngineOverloaded(message, retry_after_s)

    def _missing(self, cost: int, priority: Priority) -> int:
        """Tokens to be worked off before the cost fits its class and the queue."""
        over_class = self._held[priority] + cost - self._limit[priority]
        over_all = self._admitted + cost - self._max_tokens
        return max(over_class, over_all)
