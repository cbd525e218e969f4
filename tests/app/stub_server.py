"""The real server process around the stub engine, a real one of a faulty model, or a model.

Importing the runtime takes seconds, so one process does it and every server is forked from it:
each is a process of its own, with its own signals, sockets and exit status.
"""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import httpx
from fastapi import FastAPI

from app import server
from app.main import create_app
from app.settings import Settings
from app.telemetry.logs import configure_logging
from model_runtime import CorruptModel
from tests.app.faulty_engine import faulty_engine
from tests.app.stub_engine import StubEngine, work_router

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])

TIMEOUT_S = 20.0

_FAULTY = ("faulty", "stuck", "unfit")


def _nothing() -> None:
    """No preparation."""


class ServerProcess:
    """A server on a port of the system's choice.

    Args:
        load: how loading goes: ``ok``, ``slow`` (never ends), ``missing`` (a load error),
            ``broken`` (a bug), ``faulty`` (see ``faulty_engine``), ``stuck`` (as that, and the
            first forward hangs), ``unfit`` (as that, and the first forward raises) or ``model``
            (what the settings name).
        prepare: called by the process before it does anything.
        settings: as flags.
    """

    def __init__(
        self, load: str = "ok", *, prepare: Callable[[], object] = _nothing, **settings: object
    ) -> None:
        if os.environ.get("TEST_KERNELS") == "torch" and load == "model":
            # as in tests/conftest.py, which the process may not come by
            settings.setdefault("kernels", "torch")
        reader, writer = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_serve, args=(load, prepare, settings, writer))
        self._process.start()
        writer.close()
        self._stderr = os.fdopen(os.dup(reader.fileno()))
        reader.close()
        self.log: list[dict[str, Any]] = []
        self.address = ("127.0.0.1", int(self.await_line("listening")["port"]))
        self.url = f"http://127.0.0.1:{self.address[1]}"

    @property
    def pid(self) -> int:
        """The process's id."""
        if self._process.pid is None:
            raise RuntimeError("the process was never started")
        return self._process.pid

    def await_line(self, message: str) -> dict[str, Any]:
        """Read the log up to the line with this message."""
        for text in self._stderr:
            line: dict[str, Any] = json.loads(text)
            self.log.append(line)
            if line["message"] == message:
                return line
        raise AssertionError(f"the process ended without {message!r}: {self.log}")

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def shrink_pipe(self) -> None:
        """Let the log's pipe hold no more than a page, so that a few lines fill it."""
        fcntl.fcntl(self._stderr, fcntl.F_SETPIPE_SZ, 4096)

    def exit_code(self, *, reading: bool = True) -> int | None:
        """Wait for the end; the rest of the log is read, or left in the pipe."""
        if reading:
            self.log += [json.loads(line) for line in self._stderr]
        self._process.join(TIMEOUT_S)
        return self._process.exitcode

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._stderr.close()

    def post(self, seconds: float) -> httpx.Response:
        """Keep the engine busy for so long."""
        return httpx.post(f"{self.url}/work/x", json={"seconds": seconds}, timeout=TIMEOUT_S)

    def release(self) -> None:
        """Let the forward of a faulty engine through that is held."""
        self.signal(signal.SIGUSR1)

    def score(self, *tokens: int) -> httpx.Response:
        """Ask a faulty engine for a path."""
        body = {"context": tokens[:-1], "candidates": [tokens[-1:]]}
        return httpx.post(f"{self.url}/v1/score", json=body, timeout=TIMEOUT_S)

    def passes(self, path: str) -> bool:
        """Whether a probe passes; it does not where nobody answers."""
        try:
            return self.status(path) == 200
        except httpx.TransportError:
            return False

    def status(self, path: str) -> int:
        """What a GET answers."""
        return httpx.get(self.url + path).status_code

    def await_requests(self, count: int) -> None:
        """Wait until the engine works on so many requests."""
        health = f"{self.url}/health"
        await_true(lambda: httpx.get(health).json()["queue"]["queued_requests"] == count)


def await_true(condition: Callable[[], bool]) -> None:
    """Ask until it holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not come true")
        time.sleep(0.01)


def _serve(
    load: str, prepare: Callable[[], object], settings: dict[str, object], writer: Connection
) -> None:
    os.dup2(writer.fileno(), 2)
    writer.close()
    sys.stderr = os.fdopen(2, "w", buffering=1)
    prepare()
    if load not in (*_FAULTY, "model"):
        server.create_app = _create_with_work
    made = Settings.read({"port": 0, **settings})
    configure_logging(made.log_level, made.log_format, queued=True)
    release = threading.Event()
    signal.signal(signal.SIGUSR1, lambda _signal, _frame: release.set())
    try:
        engine = None if load == "model" else partial(_load, load, made, release)
        sys.exit(server.serve(made, load=engine))
    finally:
        logging.shutdown()  # a process that was forked so leaves without Python's own exit


def _load(how: str, settings: Settings, release: threading.Event) -> Any:
    if how in _FAULTY:
        return faulty_engine(settings.engine_config(), release, start=how)
    if how == "slow":
        time.sleep(600)
    if how == "missing":
        raise CorruptModel("model.safetensors is truncated")
    if how == "broken":
        raise KeyError("hidden_size")
    return StubEngine()


def _create_with_work(*args: Any, **kwargs: Any) -> FastAPI:
    app = create_app(*args, **kwargs)
    app.include_router(work_router)
    return app
