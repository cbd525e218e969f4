"""Requests come from the event loop, one model thread answers them.

::

    event loop                                      model thread
    submit: admit or refuse ──── inbox ───────────> take what is there; wait only while idle
    waiters, timers, places                         settle: searches go on
    resolve the waiters <── one hand-off a batch ── what has ended
                                                    forward: the next batch

The event loop alone knows who waits and how much is admitted; the model thread alone knows
what is asked and run. A job's ``gone`` is the only thing that one tells the other in between.

Memory: what leaves the inbox again is forgotten at once, and what the model thread has in hand
was all admitted at the moment it was last settled. So however many requests come and go during
one forward, at most two full queues of them are held.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from model_runtime.decoding.base import SearchStrategy
from model_runtime.errors import (
    ChainruleError,
    DeadlineExceeded,
    EngineDied,
    EngineNotReady,
    EngineStalled,
    EngineStopping,
)
from model_runtime.scheduling.admission import Admission
from model_runtime.scheduling.batcher import Batcher, FinishedRequest
from model_runtime.scheduling.engine_stats import EngineStats
from model_runtime.scheduling.forward import ForwardPipeline
from model_runtime.scheduling.request import EngineRequest
from model_runtime.scheduling.watchdog import Watchdog
from model_runtime.types import Priority, RequestOptions, RequestOutput

R = TypeVar("R")

DEFAULT_OPTIONS = RequestOptions()

ANYTIME_GRACE_S = 30.0
"""How long a search that has something to give may outlast its deadline: the forward that runs
then has to end first."""

LAST_FORWARD_S = 5.0
"""How long ``stop`` waits for a forward that still runs when the drain time is over."""


class _Inbox:
    """Requests on their way to the model thread, in order of arrival.

    Either side holds the lock for a moment only, so that the event loop is never kept waiting.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[EngineRequest, None] = {}
        self._closed = False

    def put(self, job: EngineRequest) -> None:
        with self._changed:
            self._jobs[job] = None
            self._changed.notify()

    def discard(self, job: EngineRequest) -> None:
        """Forget a job, if it was not taken yet."""
        with self._changed:
            self._jobs.pop(job, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def drain(self, *, wait: bool, pause_s: float) -> list[EngineRequest] | None:
        """All that is there after a pause, at least one job with ``wait``; None once closed."""
        with self._changed:
            if pause_s:
                self._changed.wait_for(lambda: self._closed, pause_s)
            while wait and not self._jobs and not self._closed:
                self._changed.wait()
            jobs, self._jobs = list(self._jobs), {}
            return None if self._closed else jobs


class Scheduler:
    """Admits requests, and keeps one thread busy with them.

    Args:
        model: what a batch goes through; called on the model thread only.
        max_batch_tokens: tokens fed to one forward at most.
        max_queue_tokens: tokens admitted and unfinished at most.
        watchdog: says when the thread is to be given up; None never does.
        clock: seconds of the clock that deadlines are times of.
    """

    def __init__(
        self,
        model: ForwardPipeline,
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        watchdog: Watchdog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watchdog = watchdog or Watchdog(0)
        watch = self._watchdog.watch
        watched = model._replace(plan=watch(model.plan), run=watch(model.run))
        model.report_to(self._watchdog.mark)
        self._batcher = Batcher(watched, max_batch_tokens, clock)
        self._admission = Admission(max_queue_tokens, self._batcher.throughput, self._check_open)
        self._clock = clock
        self._inbox = _Inbox()
        self._waiting: dict[EngineRequest, asyncio.Future[RequestOutput[Any]]] = {}
        self._thread: threading.Thread | None = None
        self._thread_ended = asyncio.Event()
        self._thread_died = asyncio.Event()
        self._cause: BaseException | None = None
        self._draining: asyncio.Task[None] | None = None
        self._next_look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the model thread. To be called once, on the event loop that submits."""
        loop = asyncio.get_running_loop()
        # A daemon, so that a forward that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._main, args=(loop,), name="model", daemon=True)
        self._thread.start()
        if self._watchdog.limit_s:
            self._watch(loop)

    def check_room(self, priority: Priority = Priority.INTERACTIVE) -> None:
        """Refuse a request that nobody has looked at yet, where the queue is nearly full.

        Raises:
            EngineOverloaded: it is.
        """
        self._admission.check_room(priority)

    def reserve(
        self, least: int, options: RequestOptions = DEFAULT_OPTIONS, *, check_room: bool = True
    ) -> AbstractAsyncContextManager[None]:
        """Count a request as waiting to be tokenized while the block runs.

        See ``Admission.reserve``.
        """
        return self._admission.reserve(least, options, check_room=check_room)

    async def submit(
        self, strategy: SearchStrategy[R], options: RequestOptions = DEFAULT_OPTIONS
    ) -> RequestOutput[R]:
        """Run a search to its end. Cancelling the awaiting task frees the request's place.

        Raises:
            RequestTooLarge, EngineOverloaded: it is not admitted; raised at once, unless it waits.
            EngineNotReady, EngineStopping, EngineDied: no work is taken, or none any more.
            DeadlineExceeded: its deadline passed before the end, and there was nothing to give.
            ForwardFailed: the model or the search failed on this request.
            ChainruleError: whatever else the search raised on purpose.
        """
        job = EngineRequest(strategy, options, self._clock())
        await self._admission.enter(job.cost, options)
        waiter: asyncio.Future[RequestOutput[R]] = asyncio.get_running_loop().create_future()
        self._waiting[job] = waiter
        timer = self._set_timer(job)
        self._inbox.put(job)
        try:
            return await waiter
        finally:
            self._leave(job)
            if timer is not None:
                timer.cancel()

    def stats(self) -> EngineStats:
        """Counters and gauges of this moment. From any thread; never blocks."""
        running = self._thread is not None and self._draining is None
        stalled_s = self._watchdog.stalled_s
        jobs = tuple(self._waiting)
        waiting = [job for job in jobs if job.is_waiting]
        tokens_left = self._admission.waiting_tokens + sum(job.remaining_tokens for job in jobs)
        return replace(
            self._batcher.counters,
            ready=running and self._cause is None and not stalled_s,
            alive=self._cause is None,
            stalled_s=stalled_s,
            waiting_requests=len(waiting) + self._admission.waiting_requests,
            waiting_tokens=self._admission.waiting_tokens + sum(job.cost for job in waiting),
            running_requests=len(jobs) - len(waiting),
            queued_requests=len(jobs),
            queued_tokens=self._admission.queued_tokens,
            queued_seconds=tokens_left / self._batcher.throughput.tokens_per_s,
        )

    async def wait_dead(self) -> BaseException:
        """Return when the model thread has died, with what killed it, or was given up."""
        while self._cause is None:
            await self._thread_died.wait()
        return self._cause

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, finish what is admitted, end the rest at the timeout.

        The first call decides, later ones wait for it. A forward that outlasts the drain time
        is waited for a little and then left behind.
        """
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(drain_s))
            self._admission.wake()
        await asyncio.shield(self._draining)

    # On the event loop.

    def _check_open(self) -> None:
        if self._draining is not None:
            raise EngineStopping("the engine is stopping")
        if self._cause is not None:
            raise EngineDied("the model thread has died")
        if self._thread is None:
            raise EngineNotReady("the engine has not been started")

    def _set_timer(self, job: EngineRequest) -> asyncio.TimerHandle | None:
        """End the job in time, though a long forward may be running."""
        if job.deadline == math.inf:
            return None
        end = [FinishedRequest(job, DeadlineExceeded("the request's time ran out"))]
        left_s = job.deadline - self._clock() + (ANYTIME_GRACE_S if job.is_anytime else 0.0)
        return asyncio.get_running_loop().call_later(left_s, self._resolve, end)

    def _resolve(self, finished: Iterable[FinishedRequest]) -> None:
        for job, end in finished:
            waiter = self._leave(job)
            if waiter is None or waiter.done():
                continue
            if isinstance(end, ChainruleError):
                waiter.set_exception(end)
            else:
                waiter.set_result(end)

    def _leave(self, job: EngineRequest) -> asyncio.Future[RequestOutput[Any]] | None:
        """Free the job's place, once; returns the waiter if it was still there."""
        job.cancelled = True
        self._inbox.discard(job)
        waiter = self._waiting.pop(job, None)
        if waiter is not None:
            self._admission.free(job.cost, job.priority)
        return waiter

    def _resolve_all(self, end: Callable[[], ChainruleError]) -> None:
        self._resolve([FinishedRequest(job, end()) for job in self._waiting])

    async def _drain(self, drain_s: float) -> None:
        if self._waiting:
            await asyncio.wait(self._waiting.values(), timeout=drain_s)
        self._resolve_all(lambda: EngineStopping("the engine stopped before this was answered"))
        if self._thread is None:
            return
        self._inbox.close()
        given_up = isinstance(self._cause, EngineStalled)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._thread_ended.wait(), 0 if given_up else LAST_FORWARD_S)
            await asyncio.to_thread(self._thread.join)
        if self._next_look is not None:
            self._next_look.cancel()

    def _on_thread_end(self, cause: BaseException | None) -> None:
        self._thread_ended.set()
        if cause is not None:
            self._on_death(cause)

    def _on_death(self, cause: BaseException) -> None:
        if self._cause is not None:
            return
        self._cause = cause
        self._thread_died.set()
        if isinstance(cause, EngineStalled):
            self._resolve_all(lambda: EngineStalled(str(cause)))
        else:
            self._resolve_all(lambda: EngineDied(f"the model thread died: {type(cause).__name__}"))
        self._admission.wake()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the thread up once it stands still; look again later until then."""
        if self._watchdog.look():
            limit = f"{self._watchdog.limit_s:g} s"
            self._on_death(EngineStalled(f"the model thread has made no step for {limit}"))
        if self._cause is None:
            self._next_look = loop.call_later(self._watchdog.look_s, self._watch, loop)

    # On the model thread.

    def _main(self, loop: asyncio.AbstractEventLoop) -> None:
        cause: BaseException | None = None
        try:
            while self._take_in():
                self._hand_off(loop, self._batcher.collect_finished())
                self._batcher.forward()
        except BaseException as error:
            cause = error
        with suppress(RuntimeError):  # a closed loop has no waiters
            loop.call_soon_threadsafe(self._on_thread_end, cause)

    def _take_in(self) -> bool:
        """Give new requests to the batcher; waits while there is nothing to do. False: end."""
        self._watchdog.rest()
        jobs = self._inbox.drain(wait=self._batcher.idle, pause_s=self._batcher.pause_s)
        self._watchdog.mark()
        for job in jobs or ():
            self._batcher.admit(job)
        return jobs is not None

    def _hand_off(self, loop: asyncio.AbstractEventLoop, finished: list[FinishedRequest]) -> None:
        if finished:
            loop.call_soon_threadsafe(self._resolve, finished)
