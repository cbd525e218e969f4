"""Who goes first: a share for each priority class, and by virtual deadline within a class.

While both classes wait, interactive work is given three tokens for each token of bulk work.
What a class does not need goes to the other at no debt. The planner cuts work only where the
batch is full, so one long prompt may fill a batch; the balance carries over and the other
class leads the next ones. Both stay within one batch of their share, however long they wait.

Steps of running interactive searches go before all that: they are few tokens, and somebody waits
for each of them. What may ride along is bounded by ``DecodePacer``.

Where the cache is too small for what is in hand, requests that take turns would evict each
other's chunks forever. Whoever has lost work that way goes before all others until it ends,
the oldest first: what leads a batch is matched first and not evicted by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

from model_runtime.scheduling.request import EngineRequest
from model_runtime.types import Priority

INTERACTIVE_TOKENS_PER_BULK_TOKEN = 3

VIRTUAL_DEADLINE_FACTOR = 2.0
"""A request is due after so many times the seconds that its tokens take alone."""


class SchedulingPolicy:
    """The order of the next batch.

    Args:
        batch_tokens: tokens in a batch at most; a class lags or leads by no more.
    """

    def __init__(self, batch_tokens: int) -> None:
        self._batch_tokens = batch_tokens
        self._contested = False
        self._bulk_owed = 0.0

    def order(self, jobs: Collection[EngineRequest], tokens_per_s: float) -> list[EngineRequest]:
        """All jobs, most urgent first. Jobs that are equally urgent keep their order."""
        pace = VIRTUAL_DEADLINE_FACTOR / tokens_per_s
        evicted = sorted((job for job in jobs if job.lost_cached_work), key=lambda job: job.arrival)
        others = [job for job in jobs if not job.lost_cached_work]
        others.sort(key=lambda job: job.virtual_deadline(pace))
        interactive = [job for job in others if job.priority is Priority.INTERACTIVE]
        steps = [job for job in interactive if job.decode_tokens]
        interactive = [job for job in interactive if not job.decode_tokens]
        bulk = [job for job in others if job.priority is Priority.BULK]
        self._contested = bool(interactive and bulk)
        if not self._contested:
            self._bulk_owed = 0.0
        return [*evicted, *steps, *self._interleave(interactive, bulk)]

    def charge(self, fed: Mapping[EngineRequest, int]) -> None:
        """Account for the tokens that a batch, formed in the last order, fed for each job."""
        if not self._contested:
            return
        owed = self._bulk_owed + sum(_owed_to_bulk(job, tokens) for job, tokens in fed.items())
        self._bulk_owed = max(-self._batch_tokens, min(owed, self._batch_tokens))

    def _interleave(
        self, interactive: list[EngineRequest], bulk: list[EngineRequest]
    ) -> list[EngineRequest]:
        ordered: list[EngineRequest] = []
        owed = self._bulk_owed
        waiting = deque(interactive), deque(bulk)
        while all(waiting):
            job = waiting[owed > 0].popleft()
            owed += _owed_to_bulk(job, job.expected_tokens)
            ordered.append(job)
        return [*ordered, *waiting[0], *waiting[1]]


def _owed_to_bulk(job: EngineRequest, tokens: int) -> float:
    """What feeding so many tokens for a job adds to the tokens that bulk work is owed."""
    if job.priority is Priority.BULK:
        return -tokens
    return tokens / INTERACTIVE_TOKENS_PER_BULK_TOKEN
