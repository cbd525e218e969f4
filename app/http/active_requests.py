"""The requests that are being answered at this moment, and the ways to end them early."""

from __future__ import annotations

import asyncio
from enum import Enum


class CancelReason(Enum):
    """Why a handler was ended before it was done."""

    CLIENT_LEFT = "client left"
    OUT_OF_TIME = "out of time"


class ActiveRequest:
    """One request's task while its handler runs.

    ``cancel`` cancels it from outside. The cancellation is this object's own and goes no further
    than the middleware that made it, as with ``asyncio.timeout``.
    """

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self._cancelling = task.cancelling()
        self.cancel_reason: CancelReason | None = None
        self.answered = False

    def cancel(self, ending: CancelReason) -> None:
        """Cancel the handler, unless its answer is out or it is being ended already."""
        if self.cancel_reason is None and not self.answered:
            self.cancel_reason = ending
            self._task.cancel()

    def owns_cancellation(self) -> bool:
        """Whether the cancellation that arrived is ours alone and ends here."""
        return self.cancel_reason is not None and self._task.uncancel() <= self._cancelling


class ActiveRequests:
    """The set of running handlers. Lives on the event loop."""

    def __init__(self) -> None:
        self._handlers: set[ActiveRequest] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._handlers)

    def enter(self, handler: ActiveRequest) -> None:
        """Count a handler as running."""
        self._handlers.add(handler)
        self._idle.clear()

    def leave(self, handler: ActiveRequest) -> None:
        """Count it no more."""
        self._handlers.discard(handler)
        if not self._handlers:
            self._idle.set()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing runs; False when ``timeout_s`` seconds have passed first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return not self._handlers
        return True

    def cancel_all(self) -> None:
        """End every running handler for want of time."""
        for handler in tuple(self._handlers):
            handler.cancel(CancelReason.OUT_OF_TIME)
