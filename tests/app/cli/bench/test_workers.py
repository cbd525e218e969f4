"""Sending processes that go wrong."""

from __future__ import annotations

import pytest

from app.cli.bench.load import Load
from app.cli.bench.workers import WorkerDied, run_load


@pytest.mark.process
def test_a_process_that_dies_is_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    """What it says on its end is on standard error; a report of less than all is not made."""
    with pytest.raises(WorkerDied):
        run_load(
            Load(url="http://far.example/", shape="no such shape", rate=1000.0, duration_s=0.1)
        )
    assert "no such shape" in capfd.readouterr().err
