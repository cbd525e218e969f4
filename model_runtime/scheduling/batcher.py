"""Batches out of requests: what the model thread does, without the thread.

``settle`` and ``forward`` take turns. New work comes in through ``admit`` between them, so a
batch forms while the former one runs::

    admit ──> settle ──────────────> forward ────────────────────────────> settle ...
              drop what is gone,     most urgent first, up to the budget;
              let searches go on,    a failure is narrowed down to
              return the finished    the request that causes it;
                                     what memory is too short for waits
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from model_runtime.batching.batch import Batch
from model_runtime.errors import (
    ChainruleError,
    DeadlineExceeded,
    ForwardFailed,
    NonFiniteLogits,
    OutOfMemory,
    RequestTooLarge,
)
from model_runtime.scheduling.admission import Throughput
from model_runtime.scheduling.decode_pacing import StepPace
from model_runtime.scheduling.forward import Forward
from model_runtime.scheduling.memory_wait import MemoryWait
from model_runtime.scheduling.oom_backoff import BatchBudget
from model_runtime.scheduling.policy import FairShare
from model_runtime.scheduling.request import Ask, Job
from model_runtime.types import Answer, EngineStats, Outcome, Priority


class Finished(NamedTuple):
    """A request that has ended, and how."""

    job: Job
    end: Outcome[object] | ChainruleError


class Batcher:
    """The requests in hand. All of it belongs to the model thread.

    Args:
        model: plans and runs batches.
        max_batch_tokens: tokens fed to one forward at most.
        clock: monotonic seconds.

    Attributes:
        counters: replaced as a whole, so that any thread may read it at any time.
        throughput: how fast forwards have been.
    """

    def __init__(self, model: Forward, max_batch_tokens: int, clock: Callable[[], float]) -> None:
        self.counters = EngineStats()
        self.throughput = Throughput()
        self._model = model
        self._clock = clock
        self._budget = BatchBudget(max_batch_tokens)
        self._share = FairShare(max_batch_tokens)
        self._pace = StepPace()
        self._memory_wait = MemoryWait()
        self._jobs: dict[Job, None] = {}
        self._finished: list[Finished] = []

    @property
    def idle(self) -> bool:
        """No request is in hand."""
        return not self._jobs and not self._finished

    @property
    def pause_s(self) -> float:
        """Seconds in which there is no use in going on: what is in hand waits for memory."""
        if self._finished:
            return 0.0
        return self._memory_wait.pause_s(self._jobs, self._clock())

    def admit(self, job: Job) -> None:
        """Take a request in hand; ``settle`` lets it ask."""
        self._jobs[job] = None

    def settle(self) -> list[Finished]:
        """Drop what need not run, let searches go on, return what has ended since last time."""
        now = self._clock()
        for job in list(self._jobs):
            if job.gone:
                self._drop(job)
            elif job.deadline <= now and not job.is_reading:
                self._time_out(job, now)
            elif not job.open_asks:
                self._advance(job, now)
        finished, self._finished = self._finished, []
        return finished

    def forward(self) -> None:
        """Run one batch of what is asked. Where it fails, run it in parts."""
        ordered = self._share.order(self._jobs, self.throughput.tokens_per_s)
        for jobs in self._memory_wait.split(ordered, self._clock()):
            self._attempt(jobs)

    def _advance(self, job: Job, now: float) -> None:
        try:
            outcome = job.advance(now)
        except Exception as error:
            self._end(job, _as_failure(error, "the search failed"))
        else:
            if outcome is not None:
                self._end(job, outcome)

    def _time_out(self, job: Job, now: float) -> None:
        try:
            outcome = job.give_up(now)
        except Exception as error:
            self._end(job, _as_failure(error, "the search failed"))
        else:
            self._end(job, outcome or DeadlineExceeded("the request's time ran out"))

    def _end(self, job: Job, end: Outcome[object] | ChainruleError) -> None:
        self._drop(job)
        self._finished.append(Finished(job, end))
        if isinstance(end, Outcome):
            cached = self.counters.cached_tokens + end.cached_tokens
            self.counters = replace(self.counters, cached_tokens=cached)

    def _drop(self, job: Job) -> None:
        del self._jobs[job]
        self._memory_wait.forget(job)

    def _attempt(self, jobs: Sequence[Job]) -> None:
        """One forward over what fits of these jobs; more only where it fails."""
        asks = [(job, ask) for job in jobs if not job.gone for ask in job.open_asks]
        if not asks:
            return
        planned = self._clock()
        steps = sum(job.steps for job in jobs if job.priority is Priority.INTERACTIVE)
        budget = self._pace.budget(steps, self._budget.tokens)
        try:
            batch = self._model.plan([ask.work for _, ask in asks], budget)
        except OutOfMemory as error:
            self._put_off(list(dict.fromkeys(job for job, _ in asks)), error)
            return
        except Exception as error:
            self._bisect(jobs, error)
            return
        if not batch.extents:
            asks[0][1].answer = RequestTooLarge("the token path does not fit into the KV cache")
            return
        fed = _fed_by_job(batch, asks)
        began = self._clock()
        try:
            answers = self._run(batch, len(fed))
        except Exception as error:
            _let_go_of_tensors(error)
            self._model.release(batch)
            self._recover(jobs, batch, list(fed), error)
        else:
            self._pace.observe(steps, len(batch.token_ids), self._clock() - planned)
            _deliver(batch, asks, answers)
            self._account(batch, fed, began, answers)

    def _put_off(self, jobs: Sequence[Job], error: OutOfMemory) -> None:
        """Not even a small batch fits: try fewer jobs now, and one that does not fit alone later.

        The others come with the next batch, or at once where the first one has failed.
        """
        if len(jobs) > 1:
            middle = len(jobs) // 2
            self._attempt(jobs[:middle])
            if jobs[0] not in self._jobs:
                self._attempt(jobs[middle:])
        elif error.retry_after_s is None or not self._memory_wait.put_off(jobs[0], self._clock()):
            self._end(jobs[0], error)

    def _run(self, batch: Batch, requests: int) -> Sequence[Answer]:
        self.counters = replace(self.counters, running_requests=requests)
        try:
            return self._model.run(batch)
        finally:
            self.counters = replace(self.counters, running_requests=0)

    def _recover(
        self, jobs: Sequence[Job], batch: Batch, held: Sequence[Job], error: Exception
    ) -> None:
        """After a failed forward: a smaller batch where memory ran out, else find the culprit."""
        if isinstance(error, OutOfMemory) and self._budget.shrink(len(batch.token_ids), held):
            self._attempt(jobs)
        else:
            self._bisect(held, error)

    def _bisect(self, jobs: Sequence[Job], error: Exception) -> None:
        """Try the halves apart; a job that fails alone ends with its error."""
        if len(jobs) > 1:
            middle = len(jobs) // 2
            self._attempt(jobs[:middle])
            self._attempt(jobs[middle:])
            return
        if isinstance(error, OutOfMemory):
            self._budget.forget(jobs[0])
        self._end(jobs[0], _as_failure(error, "the forward failed"))

    def _account(
        self, batch: Batch, fed: Mapping[Job, int], began: float, answers: Sequence[Answer]
    ) -> None:
        self._budget.worked(len(batch.token_ids))
        shared = len(fed) > 1
        seconds = self._clock() - began
        for job, tokens in fed.items():
            job.record(tokens, shared, began)
        self._share.charge(fed)
        self._memory_wait.ran(fed)
        self.throughput.observe(len(batch.token_ids), seconds)
        before = self.counters
        self.counters = replace(
            before,
            batches=before.batches + 1,
            shared_batches=before.shared_batches + shared,
            batch_tokens=before.batch_tokens + len(batch.token_ids),
            batch_requests=before.batch_requests + len(fed),
            head_rows=before.head_rows + len(batch.head_rows),
            non_finite_logits=before.non_finite_logits
            + sum(isinstance(answer, NonFiniteLogits) for answer in answers),
            busy_s=before.busy_s + seconds,
        )


def _fed_by_job(batch: Batch, asks: Sequence[tuple[Job, Ask]]) -> dict[Job, int]:
    """Tokens that a batch feeds for each job with a part in it."""
    fed: dict[Job, int] = {}
    for extent in batch.extents:
        job, _ = asks[extent.work_index]
        fed[job] = fed.get(job, 0) + extent.computed_tokens
    return fed


def _deliver(batch: Batch, asks: Sequence[tuple[Job, Ask]], answers: Sequence[Answer]) -> None:
    for extent, answer in zip(batch.extents, answers, strict=True):
        _, ask = asks[extent.work_index]
        ask.take(extent, answer)


def _let_go_of_tensors(error: BaseException | None) -> None:
    """Clear the frames of a failed forward, or its memory stays taken while it is tried again."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _as_failure(error: Exception, what: str) -> ChainruleError:
    if isinstance(error, ChainruleError):
        return error
    failure = ForwardFailed(f"{what}: {type(error).__name__}")
    failure.__cause__ = error
    return failure
