"""Reports: percentiles, rates and goodput by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.bench.load import Load
from app.cli.bench.report import measure, percentile
from app.cli.bench.sender import TIMEOUT, Record, Sent

LOAD = Load(url="http://far/", rate=2.0, warmup_s=1.0, duration_s=2.0)


def sent(due: float, done: float, outcome: str = "200", **changes: object) -> Sent:
    fields: dict[str, object] = {
        "due_s": due,
        "sent_s": due,
        "done_s": done,
        "lag_s": 0.0,
        "connection_limited": False,
        "outcome": outcome,
    }
    return Sent(**fields | changes)  # type: ignore[arg-type]


def test_only_the_run_counts() -> None:
    """Requests of the warm-up are left out, but answers that come within the run are work done."""
    record = Record([sent(0.5, 1.5), sent(1.0, 1.1), sent(2.0, 3.5), sent(2.5, 2.6)])
    report = measure(LOAD, record)
    assert (report.sent, report.offered, report.ok) == (3, 1.5, 3)
    assert report.achieved == 1.5
    assert report.latency_ms["max"] == pytest.approx(1500)
    assert report.latency_ms["p50"] == pytest.approx(100)


def test_goodput_counts_successes_in_time() -> None:
    """A fast refusal is not good, nor is a slow success."""
    record = Record([sent(1.0, 1.1), sent(1.0, 1.9), sent(1.0, 1.01, "429")])
    report = measure(LOAD, record, slo_ms=500.0)
    assert (report.good, report.goodput) == (1, 0.5)
    assert report.outcomes == {"200": 2, "429": 1}
    assert measure(LOAD, record).goodput is None


def test_timeouts_are_not_left_out_of_latencies() -> None:
    """They count as long as they were waited for; other failures have no latency."""
    record = Record([sent(1.0, 1.1), sent(1.0, 2.0, TIMEOUT), sent(1.0, 1.001, "500")])
    latencies = measure(LOAD, record).latency_ms
    assert latencies["max"] == pytest.approx(1000)
    assert latencies["mean"] == pytest.approx(550)


def test_a_run_without_an_answer_has_no_latencies() -> None:
    """Nor does one without a request."""
    assert measure(LOAD, Record([sent(1.0, 1.1, "500")])).latency_ms == {}
    assert measure(LOAD, Record()).sent == 0


def test_a_late_generator_is_told_from_a_slow_server() -> None:
    """One request in a hundred may be late, two may not."""
    late = [sent(1.0, 2.0, lag_s=0.5)]
    punctual = [sent(1.0, 2.0)]
    assert measure(LOAD, Record(late + 99 * punctual)).kept_up
    assert not measure(LOAD, Record(2 * late + 98 * punctual)).kept_up


def test_waits_for_a_connection_are_counted() -> None:
    """So that nobody takes a cap for the server's own limit."""
    assert (
        measure(
            LOAD, Record([sent(1.0, 1.1, connection_limited=True), sent(1.0, 1.1)])
        ).connection_limited
        == 1
    )


@given(
    st.lists(st.floats(0, 1e6), min_size=1),
    st.sampled_from([0.001, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0]),
)
def test_a_percentile_is_the_least_value_that_covers_its_share(
    values: list[float], share: float
) -> None:
    """Nothing is interpolated: it is a latency that somebody had."""
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values)
