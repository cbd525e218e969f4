"""What the app does on the event loop's thread: calls that wait, and how long callbacks compute.

A call that waits is one of those below that is made inside a running loop by code of the app or
the runtime, or by a library on its behalf; what a test itself does there is its own business.
"""

from __future__ import annotations

import asyncio
import functools
import linecache
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parent.parent.parent
OURS = (f"{ROOT}/app/", f"{ROOT}/model_runtime/")
PROGRAMS = (f"{ROOT}/app/cli/",)
"""Commands have a loop of their own, and nobody else on it."""
TESTS = f"{ROOT}/tests/"

EVENTS = frozenset(
    {
        "open",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.getnameinfo",
        "subprocess.Popen",
        "os.fork",
        "os.listdir",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.scandir",
        "os.system",
        "os.truncate",
        "shutil.copyfile",
        "shutil.rmtree",
        "urllib.Request",
    }
)
"""Of the interpreter's own audit: files, processes, names, connections."""

SHOWS_SOURCE = (traceback.__file__, linecache.__file__)

BESIDE_THE_LOOP = ("create_app", "_listen", "load")
"""What the server does before its loop runs, or on a thread, and tests themselves call in one."""

_found: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _found is None or event not in EVENTS:
        return
    if event == "socket.connect" and arguments[0].gettimeout() == 0:
        return
    _note(f"{event} of {arguments[0]!s:.80}")


sys.addaudithook(_hook)  # it cannot be taken away again; it does nothing unless somebody watches


def _note(what: str) -> None:
    if _found is None or asyncio._get_running_loop() is None:
        return
    place = _place(sys._getframe(1))
    if place is not None:
        _found.append(f"{what} at {place}")


def _place(frame: FrameType | None) -> str | None:
    """Where our code calls what waits; None where it does not."""
    place = called = None
    while frame is not None:
        name, function = frame.f_code.co_filename, frame.f_code.co_name
        # To start a thread waits until it runs; of a failure that nobody expects the log shows
        # source lines, each file read once.
        if (name, function) == (threading.__file__, "start") or name in SHOWS_SOURCE:
            return None
        if name.startswith(PROGRAMS):
            return None
        if name.startswith(TESTS) and name != __file__:
            return None if called in BESIDE_THE_LOOP else place
        if place is None and name.startswith(OURS):
            place = f"{name.removeprefix(f'{ROOT}/')}:{frame.f_lineno}"
        frame, called = frame.f_back, function
    return place


def _noting(what: str, call: Callable[..., Any], waits: Callable[..., bool]) -> Callable[..., Any]:
    @functools.wraps(call)
    def noted(*args: Any, **kwargs: Any) -> Any:
        if waits(*args):
            _note(what)
        return call(*args, **kwargs)

    return noted


_WAITS: tuple[tuple[Any, str, Callable[..., bool]], ...] = (
    (time, "sleep", lambda _seconds: True),
    # Events, queues, semaphores and barriers wait for a condition.
    (threading.Condition, "wait", lambda _self, timeout=None: timeout != 0),
    (threading.Thread, "join", lambda thread, timeout=None: thread.is_alive()),
    (Future, "result", lambda future, timeout=None: not future.done()),
    (Future, "exception", lambda future, timeout=None: not future.done()),
)


@contextmanager
def blocking_calls() -> Iterator[list[str]]:
    """Yields a list of the calls that wait, as they are made."""
    global _found
    before, _found = _found, []
    try:
        with _waits_noted():
            yield _found
    finally:
        _found = before


@contextmanager
def _waits_noted() -> Iterator[None]:
    with ExitStack() as patches:
        for kind, name, waits in _WAITS:
            noted = _noting(f"{kind.__name__}.{name}", getattr(kind, name), waits)
            patches.enter_context(patch.object(kind, name, noted))
        yield


@contextmanager
def callback_seconds() -> Iterator[list[float]]:
    """Yields a list of the seconds that each callback of any loop computes, in CPU time of its
    thread: however busy the machine is, it counts nothing that others do."""
    seconds: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        try:
            run(handle)
        finally:
            seconds.append(time.thread_time() - began)

    with patch.object(asyncio.Handle, "_run", timed):
        yield seconds
