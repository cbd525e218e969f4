"""Room for work of different sizes: what goes on at the same time is bounded as a whole."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class WeightedRoom:
    """Pieces of work that together weigh no more than ``size``, begun in the order they come.

    Args:
        size: what they may weigh; what is heavier goes alone.
        count: how many there may be.
    """

    def __init__(self, size: int, count: int) -> None:
        self._size, self._free, self._count = size, size, count
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, weight: int) -> AsyncIterator[None]:
        """Wait for room, and give it back at the end."""
        weight = min(weight, self._size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((weight, turn))
        self._begin()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += weight
                self._count += 1
            else:
                turn.cancel()
            self._begin()

    def _begin(self) -> None:
        while self._waiting:
            weight, turn = self._waiting[0]
            if not turn.cancelled():
                if not self._count or weight > self._free:
                    return
                self._free -= weight
                self._count -= 1
                turn.set_result(None)
            self._waiting.popleft()
