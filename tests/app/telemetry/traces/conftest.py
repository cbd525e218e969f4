"""Traces that stay in memory."""

from __future__ import annotations

import pytest

from tests.app.telemetry.traces.recorded import Recorded, record


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """What traced apps send."""
    return record(monkeypatch)
