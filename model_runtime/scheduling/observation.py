"""Who observes a request is told of its forwards, in plain numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping

from model_runtime.scheduling.request import EngineRequest
from model_runtime.types import ForwardRun


def report_forward(
    fed: Mapping[EngineRequest, int],
    tokens: int,
    began: float,
    ended: float,
    error: Exception | None = None,
) -> None:
    """Tell the observers of what a forward held that it has ended just now.

    Args:
        fed: tokens that it fed for each request that it held.
        tokens: that it fed.
        began, ended: in seconds of the clock that arrivals are times of.
        error: what it failed with.
    """
    observed = [job for job in fed if job.observer is not None]
    if not observed:
        return
    now_ns = time.time_ns()
    forward = ForwardRun(
        began_ns=now_ns - round((ended - began) * 1e9),
        ended_ns=now_ns,
        tokens=tokens,
        requests=len(fed),
        observed=len(observed),
        error=None if error is None else type(error).__name__,
    )
    for job in observed:
        if job.observer is not None:
            queue_s = None if job.was_held else began - job.arrival
            job.was_held = True
            job.observer.forward_ended(forward, fed[job], queue_s)
