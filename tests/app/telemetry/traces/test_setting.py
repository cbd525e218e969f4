"""Traces are off by default and cost nothing then; where they cannot be, one line says why."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from app.settings import Settings, SettingsError
from app.telemetry.request_trace import current_trace, stage
from app.telemetry.traces import traces as traces_module
from app.telemetry.traces.traces import Traces
from tests.app.conftest import client_of, shell_app
from tests.app.faulty_engine import faulty_engine
from tests.app.telemetry.traces.recorded import held_engine

SETTING = "CHAINRULE_TRACES (--traces): "


def test_off_by_default() -> None:
    """As the documentation says."""
    assert Settings.read().traces is False


@pytest.mark.anyio
async def test_nothing_is_made_while_they_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request has a trace, no stage an object, no question of the engine an observer."""
    assert stage("tokenize") is stage("render")
    seen: list[object] = []
    config = Settings().engine_config()
    engine = await asyncio.to_thread(faulty_engine, config, threading.Event())
    score = engine.score

    async def look(queries: object, options: object) -> object:
        seen.append((current_trace.get(), options.observer))  # type: ignore[attr-defined]
        return await score(queries, options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "score", look)
    async with client_of(shell_app(engine)) as client:
        body = {"context": [1], "candidates": [[2]]}
        assert (await client.post("/v1/score", json=body)).status_code == 200
    assert seen == [(None, None)]


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry.exporter"])
def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """With what to type."""
    gone = [name for name in sys.modules if f"{name}.".startswith(f"{missing}.")]
    ours = [name for name in sys.modules if name.startswith("app.telemetry.traces")]
    for name in (*gone, *ours):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SettingsError) as caught:
        shell_app(traces=True)
    assert str(caught.value) == f"{SETTING}an extra is needed: pip install 'chainrule[otel]'"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "there is no exporter but otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "there is no protocol but http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "there is no protocol but"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "999999", "max_export_batch_size"),
    ],
)
def test_a_variable_that_cannot_be_used_is_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    """Naming the setting, and what is wrong."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        shell_app(traces=True)
    line = str(caught.value)
    assert line.startswith(SETTING)
    assert words in line
    assert "\n" not in line


class Stuck(SpanExporter):
    """Never sends anything, until it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Wait."""
        self.asked.set()
        self.go_on.wait()
        return SpanExportResult.SUCCESS


@pytest.mark.anyio
async def test_a_collector_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor a request before it."""
    monkeypatch.setattr(traces_module, "FLUSH_S", 0.05)
    stuck = Stuck()
    processor = BatchSpanProcessor(stuck, schedule_delay_millis=1, max_export_batch_size=1)
    monkeypatch.setattr("app.main.open_traces", lambda: Traces(processor))
    try:
        async with held_engine() as held:
            for token in range(1, 9):
                assert (await held.score(token, 2)).status_code == 200
            assert stuck.asked.wait(5)
        assert not stuck.go_on.is_set()
        assert "the last spans were not taken in time" in caplog.messages
    finally:
        stuck.go_on.set()
        processor.shutdown()
