"""Batches out of requests: what the model thread does, without the thread.

``collect_finished`` and ``forward`` take turns. New work comes in through ``admit`` between them,
so a batch forms while the former one runs::

    admit ──> collect_finished ────> forward ────────────────────────────> collect_finished ...
              drop the cancelled,    most urgent first, up to the budget;
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
from model_runtime.scheduling.decode_pacing import DecodePacer
from model_runtime.scheduling.engine_stats import (
    BATCH_SIZE_BOUNDS,
    SECONDS_BOUNDS,
    EngineStats,
    with_value,
)
from model_runtime.scheduling.forward import ForwardPipeline
from model_runtime.scheduling.memory_wait import MemoryWait
from model_runtime.scheduling.observation import report_forward
from model_runtime.scheduling.oom_backoff import OomBackoff
from model_runtime.scheduling.policy import SchedulingPolicy
from model_runtime.scheduling.request import EngineRequest, PendingQuery
from model_runtime.types import Priority, QueryResult, RequestOutput


class FinishedRequest(NamedTuple):
    """A request that has ended, and how."""

    job: EngineRequest
    end: RequestOutput[object] | ChainruleError


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

    def __init__(
        self, model: ForwardPipeline, max_batch_tokens: int, clock: Callable[[], float]
    ) -> None:
        self.counters = EngineStats(max_batch_tokens=max_batch_tokens)
        self.throughput = Throughput()
        self._model = model
        self._clock = clock
        self._budget = OomBackoff(max_batch_tokens)
        self._share = SchedulingPolicy(max_batch_tokens)
        self._pace = DecodePacer()
        self._memory_wait = MemoryWait()
        self._jobs: dict[EngineRequest, None] = {}
        self._finished: list[FinishedRequest] = []

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

    def admit(self, job: EngineRequest) -> None:
        """Take a request in hand; ``collect_finished`` lets it ask."""
        self._jobs[job] = None

    def collect_finished(self) -> list[FinishedRequest]:
        """Drop what need not run, let searches go on, return what has ended since last time."""
        now = self._clock()
        for job in list(self._jobs):
            if job.cancelled:
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
            self._run_batch(jobs)

    def _advance(self, job: EngineRequest, now: float) -> None:
        try:
            outcome = job.advance(now)
        except Exception as error:
            self._end(job, _as_failure(error, "the search failed"))
        else:
            if outcome is not None:
                self._end(job, outcome)

    def _time_out(self, job: EngineRequest, now: float) -> None:
        try:
            outcome = job.finish_early(now)
        except Exception as error:
            self._end(job, _as_failure(error, "the search failed"))
        else:
            self._end(job, outcome or DeadlineExceeded("the request's time ran out"))

    def _end(self, job: EngineRequest, end: RequestOutput[object] | ChainruleError) -> None:
        self._drop(job)
        self._finished.append(FinishedRequest(job, end))
        if isinstance(end, RequestOutput):
            cached = self.counters.cached_tokens + end.cached_tokens
            self.counters = replace(self.counters, cached_tokens=cached)

    def _drop(self, job: EngineRequest) -> None:
        del self._jobs[job]
        self._memory_wait.forget(job)

    def _run_batch(self, jobs: Sequence[EngineRequest]) -> None:
        """One forward over what fits of these jobs; more only where it fails."""
        asks = [(job, ask) for job in jobs if not job.cancelled for ask in job.open_asks]
        if not asks:
            return
        planned = self._clock()
        steps = sum(job.decode_tokens for job in jobs if job.priority is Priority.INTERACTIVE)
        budget = self._pace.budget(steps, self._budget.tokens)
        try:
            batch = self._model.plan([ask.work for _, ask in asks], budget)
        except OutOfMemory as error:
            self._put_off(list(dict.fromkeys(job for job, _ in asks)), error)
            return
        except Exception as error:
            self._bisect(jobs, error)
            return
        if not batch.query_slices:
            asks[0][1].answer = RequestTooLarge("the token path does not fit into the KV cache")
            return
        fed = _fed_by_job(batch, asks)
        for job in fed:
            job.is_waiting = False
        began = self._clock()
        try:
            answers = self._model.run(batch)
        except Exception as error:
            _clear_frames(error)
            self._model.release(batch)
            report_forward(fed, len(batch.token_ids), began, self._clock(), error)
            self._retry_smaller(jobs, batch, list(fed), error)
        else:
            ended = self._clock()
            self._pace.observe(steps, len(batch.token_ids), ended - planned)
            report_forward(fed, len(batch.token_ids), began, ended)
            _deliver(batch, asks, answers)
            self._account(batch, fed, began, answers)

    def _put_off(self, jobs: Sequence[EngineRequest], error: OutOfMemory) -> None:
        """Not even a small batch fits: try fewer jobs now, and one that does not fit alone later.

        The others come with the next batch, or at once where the first one has failed.
        """
        if len(jobs) > 1:
            middle = len(jobs) // 2
            self._run_batch(jobs[:middle])
            if jobs[0] not in self._jobs:
                self._run_batch(jobs[middle:])
        elif error.retry_after_s is None or not self._memory_wait.put_off(jobs[0], self._clock()):
            self._end(jobs[0], error)

    def _retry_smaller(
        self,
        jobs: Sequence[EngineRequest],
        batch: Batch,
        held: Sequence[EngineRequest],
        error: Exception,
    ) -> None:
        """After a failed forward: a smaller batch where memory ran out, else find the culprit."""
        if isinstance(error, OutOfMemory) and self._budget.shrink(len(batch.token_ids), held):
            self._run_batch(jobs)
        else:
            self._bisect(held, error)

    def _bisect(self, jobs: Sequence[EngineRequest], error: Exception) -> None:
        """Try the halves apart; a job that fails alone ends with its error."""
        if len(jobs) > 1:
            middle = len(jobs) // 2
            self._run_batch(jobs[:middle])
            self._run_batch(jobs[middle:])
            return
        if isinstance(error, OutOfMemory):
            self._budget.clear_culprit(jobs[0])
        self._end(jobs[0], _as_failure(error, "the forward failed"))

    def _account(
        self,
        batch: Batch,
        fed: Mapping[EngineRequest, int],
        began: float,
        answers: Sequence[QueryResult],
    ) -> None:
        self._budget.worked(len(batch.token_ids))
        size, seconds = len(batch.token_ids), self._clock() - began
        for job, tokens in fed.items():
            if job.usage.first_forward is None:
                self._count_first_batch(began - job.arrival)
            job.add_usage(tokens, began)
        self._share.charge(fed)
        self._memory_wait.ran(fed)
        self.throughput.observe(size, seconds)
        before = self.counters
        self.counters = replace(
            before,
            batches=before.batches + 1,
            shared_batches=before.shared_batches + (len(fed) > 1),
            batch_tokens=before.batch_tokens + size,
            batch_requests=before.batch_requests + len(fed),
            batch_size_counts=with_value(before.batch_size_counts, BATCH_SIZE_BOUNDS, size),
            batch_seconds_counts=with_value(before.batch_seconds_counts, SECONDS_BOUNDS, seconds),
            head_rows=before.head_rows + len(batch.head_rows),
            non_finite_logits=before.non_finite_logits
            + sum(isinstance(answer, NonFiniteLogits) for answer in answers),
            busy_s=before.busy_s + seconds,
        )

    def _count_first_batch(self, waited_s: float) -> None:
        before = self.counters
        self.counters = replace(
            before,
            first_batches=before.first_batches + 1,
            queue_s=before.queue_s + waited_s,
            queue_seconds_counts=with_value(before.queue_seconds_counts, SECONDS_BOUNDS, waited_s),
        )


def _fed_by_job(
    batch: Batch, asks: Sequence[tuple[EngineRequest, PendingQuery]]
) -> dict[EngineRequest, int]:
    """Tokens that a batch feeds for each job with a part in it."""
    fed: dict[EngineRequest, int] = {}
    for query_slice in batch.query_slices:
        job, _ = asks[query_slice.work_index]
        fed[job] = fed.get(job, 0) + query_slice.computed_tokens
    return fed


def _deliver(
    batch: Batch, asks: Sequence[tuple[EngineRequest, PendingQuery]], answers: Sequence[QueryResult]
) -> None:
    for query_slice, answer in zip(batch.query_slices, answers, strict=True):
        _, ask = asks[query_slice.work_index]
        ask.add_part(query_slice, answer)


def _clear_frames(error: BaseException | None) -> None:
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
