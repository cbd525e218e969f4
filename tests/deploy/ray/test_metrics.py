"""What a replica gives to Ray of its metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

# Ray itself warns at its import.
pytestmark = [pytest.mark.fleet, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXT = b"""# TYPE chainrule_ready gauge
chainrule_ready 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="m"} 2.0
"""


def test_a_failure_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next time it is tried again; names that Ray refuses are left out."""
    from deploy.ray import metrics

    values: dict[str, float] = {}
    done = asyncio.Event()

    class Gauge:
        def __init__(self, name: str, *_: object) -> None:
            self._name = name

        def set(self, value: float, labels: dict[str, str]) -> None:
            values[self._name] = value

    class Scraped:
        times = 0

        async def scrape(self) -> bytes:
            self.times += 1
            if self.times == 1:
                raise OSError("no /proc")
            if self.times == 3:
                done.set()
            return TEXT

    async def run() -> None:
        scraped: Any = Scraped()
        task = asyncio.create_task(metrics.MetricsExport(scraped).run())
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()

    monkeypatch.setattr(metrics, "Gauge", Gauge)
    monkeypatch.setattr(metrics, "PERIOD_S", 0.001)
    asyncio.run(run())
    assert values == {"chainrule_ready": 1.0}
