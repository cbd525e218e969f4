"""What the process is doing, from its first moment to its exit status.

              begin                stop
   LOADING ──────────> READY ──────────────> DRAINING ──────> STOPPED     exit 0
      │                  │                      │
      │ load failed      │ engine died          │ engine died, or hangs
      └──────────────────┴──────────────────────┴───────────> FAILED      exit 1

A stop while loading goes straight to STOPPED: there is nothing to finish. The first seconds of
DRAINING may still take requests: whoever balances load learns a little later that it is over here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from anyio import to_thread

from app.http.active_requests import ActiveRequests
from app.telemetry.thread_stacks import log_thread_stacks
from model_runtime import (
    Engine,
    EngineDied,
    EngineNotReady,
    EngineStalled,
    EngineStats,
    EngineStopping,
    ModelInfo,
    ModelLoadError,
)

logger = logging.getLogger(__name__)

GRACE_S = 0.5
"""Seconds in which requests that were failed at the drain timeout may send their 503."""

FINGERPRINT_HEADER: Final = b"x-chainrule-fingerprint"
"""Answers of equal fingerprints have equal bits, whichever server gave them."""

_Headers = tuple[tuple[bytes, bytes], ...]
_CLOSE: Final[_Headers] = ((b"connection", b"close"),)


class Phase(StrEnum):
    """Where in its life the process is."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


_NOT_READY: Final = {
    Phase.LOADING: "the model is being loaded",
    Phase.DRAINING: "the server is shutting down",
    Phase.STOPPED: "the server has stopped",
    Phase.FAILED: "the engine has failed",
}


class Lifecycle:
    """The engine, and whether it may be used. Lives on the event loop."""

    def __init__(self) -> None:
        self.active_requests = ActiveRequests()
        self.phase = Phase.LOADING
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._left_behind = False
        self._refusing = asyncio.Event()
        self._fingerprint_header: _Headers = ()

    @property
    def is_terminal(self) -> bool:
        """Whether the process has nothing left to do."""
        return self.phase in (Phase.STOPPED, Phase.FAILED)

    @property
    def takes_requests(self) -> bool:
        """Whether new requests are let in, if only to be told that the model is loading."""
        return self.phase in (Phase.LOADING, Phase.READY) or self.takes_late_requests

    @property
    def takes_late_requests(self) -> bool:
        """Whether new requests are let in although the stop has begun."""
        return self.phase is Phase.DRAINING and not self._refusing.is_set()

    @property
    def exit_code(self) -> int:
        """0 after a stop that was asked for, 1 after a failure."""
        return 1 if self.phase is Phase.FAILED else 0

    @property
    def has_abandoned_threads(self) -> bool:
        """Whether a thread still loads or computes what nobody waits for any more."""
        return self._left_behind

    @property
    def is_ready(self) -> bool:
        """Whether a real forward has passed and new work is admitted."""
        return self.not_ready_reason is None

    @property
    def not_ready_reason(self) -> str | None:
        """Why no work should be sent here; None where it may be."""
        if self.phase is not Phase.READY:
            return _NOT_READY[self.phase]
        stats = self.stats()
        if stats.stalled_s and stats.alive:
            return f"the model has made no progress for {stats.stalled_s:g} seconds"
        return None if stats.ready else "the engine takes no work"

    @property
    def is_alive(self) -> bool:
        """Whether there is still a point in waiting for this process."""
        return self.phase is not Phase.FAILED and self.stats().alive

    @property
    def model_name(self) -> str | None:
        """What is served; None until it is loaded."""
        return None if self._engine is None else self._engine.info.name

    def model_info(self) -> ModelInfo | None:
        """What is served; None until it is loaded."""
        return None if self._engine is None else self._engine.info

    @property
    def headers(self) -> _Headers:
        """What every answer carries: the model's fingerprint once it is loaded, and, where the stop
        has begun, that the next request belongs on a connection to somebody else."""
        return self._fingerprint_header + (_CLOSE if self.takes_late_requests else ())

    def stats(self) -> EngineStats:
        """The engine's counters; those of an engine that has done nothing while there is none."""
        return EngineStats() if self._engine is None else self._engine.stats()

    def engine(self) -> Engine:
        """The engine, for a request that has been let in.

        Raises:
            EngineUnavailable: it is being loaded, is gone, or has died.
        """
        if self.phase is Phase.STOPPED:
            raise EngineStopping("the server is shutting down")
        if self.phase is Phase.FAILED:
            raise EngineDied("the engine has failed")
        if self._engine is None:
            raise EngineNotReady("the model is still being loaded")
        return self._engine

    def check_room(self) -> None:
        """Refuse a request unread where the engine's queue is nearly full. Without an engine that
        takes requests nothing is full.

        Raises:
            EngineOverloaded: it is.
        """
        if self._engine is not None and self.takes_requests:
            self._engine.check_room()

    def start_loading(self, load: Callable[[], Engine]) -> None:
        """Load the engine on a thread of its own, start it, and watch over it."""
        self._task = asyncio.create_task(self._load(load), name="load")

    async def attach(self, engine: Engine) -> None:
        """Start an engine that is loaded already, and watch over it."""
        await engine.start()
        self._engine = engine
        self._fingerprint_header = ((FINGERPRINT_HEADER, engine.info.fingerprint.encode("ascii")),)
        self.phase = Phase.READY
        self._task = asyncio.create_task(self._watch(engine), name="watch")
        logger.info("ready", extra=_served(engine.info))

    def request_stop(self, drain_s: float, delay_s: float = 0.0) -> None:
        """Begin to stop; asking again changes nothing."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self.stop(drain_s, delay_s), name="stop")

    def hurry(self) -> None:
        """Take no more requests, and answer those in flight with 503 at once."""
        self._refusing.set()
        self.active_requests.cancel_all()

    async def stop(self, drain_s: float, delay_s: float = 0.0) -> None:
        """Let what is in flight finish; after ``drain_s`` seconds answer the rest with 503.

        Args:
            drain_s: counted from the moment on from which new requests are refused.
            delay_s: seconds before that in which readiness is over and requests are let in.
        """
        if self.is_terminal:
            return
        self.phase = Phase.DRAINING
        logger.info("draining", extra={"requests": len(self.active_requests)})
        if self._engine is not None and delay_s:
            await self._take_late_requests(delay_s)
        self._refusing.set()
        if self._engine is None:
            self._left_behind = self._task is not None and not self._task.done()
            self._cancel_task()
        else:
            await self._drain(self._engine, drain_s)
        if not self.is_terminal:
            self.phase = Phase.STOPPED
            logger.info("stopped")

    async def _take_late_requests(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._refusing.wait()

    async def _drain(self, engine: Engine, drain_s: float) -> None:
        if not await self.active_requests.wait_idle(drain_s):
            logger.warning("drain timeout", extra={"requests": len(self.active_requests)})
        await self._stop_engine(engine)
        if not await self.active_requests.wait_idle(GRACE_S):
            self.active_requests.cancel_all()
            await self.active_requests.wait_idle(GRACE_S)

    async def _stop_engine(self, engine: Engine) -> None:
        self._cancel_task()
        try:
            async with asyncio.timeout(GRACE_S):
                await engine.stop(0.0)
        except TimeoutError:
            self._left_behind = True

    async def _load(self, load: Callable[[], Engine]) -> None:
        try:
            engine = await to_thread.run_sync(load, abandon_on_cancel=True)
            # What exists now lives as long as the process: no collection need visit it again.
            gc.collect()
            gc.freeze()
            await self.attach(engine)
        except ModelLoadError as exc:
            self._fail(f"cannot serve the model: {exc}", exc)
        except Exception as exc:
            logger.debug("load failed", exc_info=True)
            self._fail(f"cannot serve the model: {type(exc).__name__}: {exc}", exc)

    async def _watch(self, engine: Engine) -> None:
        exc = await engine.wait_dead()
        self._fail(f"the engine died: {type(exc).__name__}: {exc}", exc)

    def _fail(self, reason: str, cause: BaseException) -> None:
        self.phase = Phase.FAILED
        if isinstance(cause, EngineStalled):
            self._left_behind = True
            log_thread_stacks()
        logger.critical(" ".join(reason.split()))

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _served(info: ModelInfo) -> dict[str, str]:
    """What the log says of the model: its name, what computes it, and why that was chosen."""
    reason = {} if info.kernels_reason is None else {"kernels_reason": info.kernels_reason}
    return {"model": info.name, "kernels": info.kernels, **reason}
