"""Work in a thread that nobody has to wait for when the process ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
A = TypeVarTuple("A")


async def run_in_daemon_thread(work: Callable[[Unpack[A]], T], *args: *A) -> T:
    """What the work returns or raises.

    It may wait for input that never comes: unlike ``asyncio.to_thread``, a wait that is cancelled
    leaves the thread behind, and neither the loop nor the process waits for its end.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(settle: Callable[[], None]) -> None:
        # Whoever asked has gone, where it is done already or the loop is closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if done.done() else settle())

    def run() -> None:
        try:
            result = work(*args)
        except Exception as error:
            failure = error
            tell(lambda: done.set_exception(failure))
        else:
            tell(lambda: done.set_result(result))

    threading.Thread(target=run, name="chainrule-input", daemon=True).start()
    return await done
