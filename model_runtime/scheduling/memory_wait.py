"""Requests that wait for memory: none of it is theirs to free, so they are tried again later.

A request is put off when alone not even its smallest batch fits what is free. Those that were put
off are tried again apart from the others, which go on the while. Where nothing goes on, because
nothing fits or because all were put off, there is a pause until the next try.

Memory that is short for a moment fails nobody. Who has waited for ``LONGEST_WAIT_S`` fails, and
when nothing has run for as long, so does whoever has been there since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from model_runtime.scheduling.request import EngineRequest

LONGEST_WAIT_S = 10.0
"""Seconds for which a request is tried again."""

FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.25
"""Seconds until the next try. They double each time; the last bounds how late it is noticed that
memory is back."""


class MemoryWait:
    """Who was put off, in the order of their last tries, and when to try again."""

    def __init__(self) -> None:
        self._since: dict[EngineRequest, float] = {}
        self._stopped: float | None = None
        self._pause_s = 0.0
        self._next_try = 0.0

    def split(
        self, jobs: Collection[EngineRequest], now: float
    ) -> tuple[list[EngineRequest], list[EngineRequest]]:
        """Who is to be tried again now, longest not tried first; and who was not put off."""
        if not self._since:
            return [], list(jobs)
        due = list(self._since) if now >= self._next_try else []
        return due, [job for job in jobs if job not in self._since]

    def put_off(self, job: EngineRequest, now: float) -> bool:
        """It does not fit now. False where it has waited long enough."""
        if self._stopped is None:
            self._stopped = now
        since = self._since.get(job, max(job.arrival, self._stopped))
        if now - since >= LONGEST_WAIT_S:
            return False
        self._since.pop(job, None)
        self._since[job] = since
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._next_try = now + self._pause_s
        return True

    def ran(self, jobs: Iterable[EngineRequest]) -> None:
        """A batch with a part of these has run."""
        self._stopped = None
        for job in jobs:
            self.forget(job)

    def forget(self, job: EngineRequest) -> None:
        """It waits no more, whether it has run or is gone."""
        if self._since.pop(job, None) is not None and not self._since:
            self._pause_s = 0.0

    def pause_s(self, jobs: Collection[EngineRequest], now: float) -> float:
        """Seconds until the next try; 0 where some of ``jobs`` go on, or none was put off."""
        goes_on = self._stopped is None and len(jobs) > len(self._since)
        return 0.0 if goes_on or not self._since else max(0.0, self._next_try - now)
