"""How many replicas: as many as work off what is queued within a target.

Pure but for Ray's names in annotations, so that it is tested without Ray.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

QUEUED_SECONDS: Final = "queued_seconds"
BUSY: Final = "busy"
"""What a replica reports: seconds that its queue takes, and the share of time in forwards."""

TARGET_QUEUED_SECONDS: Final = 2.0
TARGET_BUSY: Final = 0.7
"""Above it a fleet grows, below it may shrink. An empty queue alone says nothing of how near to
full it runs."""


def desired_replicas(
    queued_seconds: Iterable[float],
    busy: Iterable[float],
    target_s: float,
    target_busy: float = TARGET_BUSY,
) -> int:
    """Replicas that finish what is queued within ``target_s``, and are busy ``target_busy``
    of the time with what comes in; at least one.

    Args:
        queued_seconds: of each replica, by its own speed.
        busy: of each replica, 0..1.
        target_s: seconds, above 0.
        target_busy: share, above 0.
    """
    for_queue = math.ceil(sum(queued_seconds) / target_s)
    for_arrivals = math.ceil(sum(busy) / target_busy)
    return max(1, for_queue, for_arrivals)


class QueuedSecondsPolicy:
    """Ray's autoscaling policy. Ray itself keeps it between ``min_replicas`` and
    ``max_replicas``, and waits ``upscale_delay_s`` or ``downscale_delay_s``.

    Args:
        target_queued_seconds: what a request that arrives now should wait at most.
        target_busy: share of the time that a replica spends in forwards, 0..1; above it more
            replicas are wanted, whatever is queued.

    Raises:
        ValueError: a target is not above 0, or ``target_busy`` above 1.
    """

    def __init__(
        self,
        target_queued_seconds: float = TARGET_QUEUED_SECONDS,
        target_busy: float = TARGET_BUSY,
    ) -> None:
        if not target_queued_seconds > 0:
            raise ValueError("target_queued_seconds must be above 0")
        if not 0 < target_busy <= 1:
            raise ValueError("target_busy must be above 0, and 1 at most")
        self._target_s = target_queued_seconds
        self._target_busy = target_busy

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and no state. Replicas that have not reported yet change
        nothing: what they will take over is still in the others' queues."""
        reports = ctx.aggregated_metrics or {}
        queued, busy = reports.get(QUEUED_SECONDS, {}), reports.get(BUSY, {})
        if not queued:
            return ctx.target_num_replicas, {}
        wanted = desired_replicas(queued.values(), busy.values(), self._target_s, self._target_busy)
        return wanted, {}
