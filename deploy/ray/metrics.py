"""A replica's metrics, among those that each node of Ray shows to Prometheus.

``GET /metrics`` through Serve is answered by one replica, whichever is next. So each gives all of
its samples to Ray, which puts ``ray_`` before their names and says which replica it was: labels
``replica``, ``deployment`` and ``application``. Counters and histograms keep their samples' names
(``..._total``, ``..._bucket`` with ``le``), so ``rate`` and ``histogram_quantile`` work on them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from ray.serve.metrics import Gauge

from app.telemetry.metrics import Metrics

logger = logging.getLogger("app.ray")

PERIOD_S: Final = 5.0


class MetricsExport:
    """Copies what ``/metrics`` would say, every few seconds."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._gauges: dict[str, Gauge] = {}

    async def run(self) -> None:
        """Until it is cancelled. What fails is logged, and tried again at the next time."""
        while True:
            try:
                await self.export()
            except Exception:
                logger.exception("the metrics were not given to Ray")
            await asyncio.sleep(PERIOD_S)

    async def export(self) -> None:
        """Once. Names with a colon, those of vLLM's dialect, are left out: Ray does not take them
        for names."""
        text = (await self._metrics.scrape()).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if ":" in sample.name:
                    continue
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    labels = tuple(sample.labels)
                    gauge = Gauge(sample.name, family.documentation, labels)
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, dict(sample.labels))
