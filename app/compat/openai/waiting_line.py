"""Requests that wait for room in the queue, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from model_runtime import EngineOverloaded

MAX_WAITING: Final = 128
"""Places of one line: each is held by a request whose body is kept meanwhile."""

MAX_WAITING_TOKENS: Final = 1 << 22
"""Prompt tokens of all that wait in one line, where more than one does."""


class Place:
    """Where somebody stands in a line.

    Args:
        tokens: held by the request.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.turn = asyncio.Event()


class WaitingLine:
    """Only the first of the line tries to get in; so nobody overtakes, and waiting is cheap.

    Whoever leaves, for whatever reason, makes way for the next one. Lives on the event loop.

    Attributes:
        retry_after_s: what the queue said when it last turned somebody away.
    """

    def __init__(self) -> None:
        self.retry_after_s = 1.0
        self._places: deque[Place] = deque()

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def place(self, tokens: int = 0) -> Iterator[Place]:
        """A place at the end of the line while the block runs.

        Raises:
            EngineOverloaded: the line is too long already.
        """
        held = sum(place.tokens for place in self._places)
        too_many = self._places and held + tokens > MAX_WAITING_TOKENS
        if too_many or len(self._places) >= MAX_WAITING:
            raise self.overloaded(f"{len(self._places)} requests wait for room in the queue")
        place = Place(tokens)
        self._places.append(place)
        self._call_first()
        try:
            yield place
        finally:
            self.step_aside(place)

    def step_aside(self, place: Place) -> None:
        """It seems to be in: the next one may try. Doing so again changes nothing."""
        if place in self._places:
            self._places.remove(place)
        place.turn.clear()
        self._call_first()

    def step_back(self, place: Place) -> None:
        """It was turned away after all, and is the first again."""
        if place not in self._places:
            if self._places:
                self._places[0].turn.clear()
            self._places.appendleft(place)
        self._call_first()

    def overloaded(self, message: str) -> EngineOverloaded:
        """What is said to whoever cannot wait any longer."""
        return EngineOverloaded(message, retry_after_s=self.retry_after_s)

    def _call_first(self) -> None:
        if self._places:
            self._places[0].turn.set()


class WaitingLines:
    """One line for each class of service: one may find room where the other does not."""

    def __init__(self) -> None:
        self._lines = {"interactive": WaitingLine(), "bulk": WaitingLine()}

    def of(self, priority: str) -> WaitingLine:
        """The line of a class."""
        return self._lines[priority]
