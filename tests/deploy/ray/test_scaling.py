"""How many replicas there should be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from deploy.ray.scaling import QueuedSecondsPolicy, desired_replicas


@pytest.mark.parametrize(
    ("queued", "busy", "expected"),
    [
        ([0.0], [0.0], 1),
        ([2.0], [1.0], 2),
        ([2.1], [0.1], 2),
        ([9.0, 1.0], [1.0, 1.0], 5),
        ([0.0, 0.0, 0.0], [0.9, 0.9, 0.9], 4),
        ([0.0, 0.0, 0.0], [0.2, 0.2, 0.2], 1),
        ([], [], 1),
    ],
)
def test_desired_replicas(queued: list[float], busy: list[float], expected: int) -> None:
    """As many as finish the queue in two seconds, and none too few for what comes in."""
    assert desired_replicas(queued, busy, target_s=2.0) == expected


def test_policy_sums_over_replicas() -> None:
    """It is given what each replica has reported, by name."""
    reports = {"queued_seconds": {"a": 3.0, "b": 6.5}, "busy": {"a": 1.0, "b": 1.0}}
    assert QueuedSecondsPolicy(3.0)(_context(reports)) == (4, {})


@pytest.mark.parametrize("reports", [None, {}, {"running_requests": {"a": 1.0}}])
def test_without_reports_nothing_changes(reports: Any) -> None:
    """As while the first replica is being loaded."""
    assert QueuedSecondsPolicy()(_context(reports)) == (7, {})


def test_a_target_of_nothing_is_refused() -> None:
    """It would divide by zero in Ray's controller."""
    with pytest.raises(ValueError, match="target_queued_seconds"):
        QueuedSecondsPolicy(0.0)


def test_a_busy_fleet_grows() -> None:
    """Though nothing is queued; the target says from which share on."""
    reports = {"queued_seconds": {"a": 0.0}, "busy": {"a": 0.8}}
    assert QueuedSecondsPolicy()(_context(reports)) == (2, {})
    assert QueuedSecondsPolicy(target_busy=0.9)(_context(reports)) == (1, {})
    with pytest.raises(ValueError, match="target_busy"):
        QueuedSecondsPolicy(target_busy=1.1)


def _context(reports: Any) -> Any:
    return SimpleNamespace(aggregated_metrics=reports, target_num_replicas=7)
