"""Log lines and metrics: what they say, and what they never say."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from app import version
from app.environment import wants_colours
from app.http.lifecycle import Lifecycle
from app.server import Server
from app.telemetry.cache_stats import ScoreCacheStats
from app.telemetry.logs import (
    ConsoleFormatter,
    JsonFormatter,
    TextFormatter,
    chosen_format,
    request_scope,
)
from app.telemetry.metrics import Metrics
from model_runtime import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS, EngineStats, ModelInfo
from model_runtime.scheduling.engine_stats import with_value
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine
from tests.app.stub_engine import INFO, StubEngine

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _listen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="app")


def record(message: str, **facts: object) -> logging.LogRecord:
    """A log record as ``logger.info`` makes it."""
    made = logging.LogRecord("app.x", logging.INFO, __file__, 1, message, (), None)
    vars(made).update(facts)
    return made


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """The access log as it would be written."""
    lines = [one for one in caplog.records if one.name == "app.access"]
    return [json.loads(JsonFormatter().format(one)) for one in lines]


async def scrape(client: httpx.AsyncClient) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample: name and label values -> value."""
    text = (await client.get("/metrics")).text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient) -> None:
    """The caller's id comes back, so both sides' logs can be joined."""
    response = await client.get("/health", headers={"X-Request-Id": "a1.B2_c3-d4/e5:f6"})
    assert response.headers["X-Request-Id"] == "a1.B2_c3-d4/e5:f6"


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b"\x1b[31m", b"a\xff", b'"', b"a\x00b"])
async def test_any_other_request_id_is_replaced(client: httpx.AsyncClient, given: bytes) -> None:
    """Empty, long or with characters that could do harm: a new one is made."""
    response = await client.get("/health", headers=[(b"X-Request-Id", given)])
    made = response.headers["X-Request-Id"]
    assert made.encode() != given
    assert len(made) == 32


async def test_requests_without_an_id_get_different_ones(client: httpx.AsyncClient) -> None:
    """Errors carry the id as well as answers."""
    responses = [await client.get("/health"), await client.get("/nowhere")]
    assert len({response.headers["X-Request-Id"] for response in responses}) == 2


async def test_each_request_is_one_line(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, route template, status, duration and id; the body stays out of it."""
    body = {"candidates": ["my secret prompt"]}
    await client.post("/work/tenant-7", json=body, headers={"X-Request-Id": "r1"})
    (line,) = access_lines(caplog)
    assert line["message"] == "request"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/work/{name}", 200)
    assert line["duration_ms"] >= 0  # type: ignore[operator]
    assert "secret" not in caplog.text
    assert "tenant-7" not in json.dumps(line)


async def test_a_failed_validation_logs_no_prompt(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Bad bodies are not written out for debugging either."""
    await client.post("/work/x", json={"seconds": "my secret prompt"})
    await client.post("/work/x", content=b"my secret prompt")
    assert "secret" not in "".join(map(json.dumps, access_lines(caplog)))
    assert "secret" not in caplog.text


async def test_probes_do_not_fill_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Health and metrics are asked all the time and are worth a line only when debugging."""
    await client.get("/health/live")
    await client.get("/metrics")
    assert access_lines(caplog) == []


def test_lines_of_one_request_carry_its_id() -> None:
    """Whatever is logged while a request is handled can be found by its id."""
    with request_scope("r7"):
        inside = json.loads(JsonFormatter().format(record("x")))
    outside = json.loads(JsonFormatter().format(record("x")))
    assert inside["request_id"] == "r7"
    assert "request_id" not in outside


class Lines(logging.Handler):
    """Keeps what would be written, as the server's handler formats it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(json.loads(JsonFormatter().format(record)))


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    """Everything that ``app`` logs meanwhile."""
    handler, logger = Lines(), logging.getLogger("app")
    logger.addHandler(handler)
    yield handler.written
    logger.removeHandler(handler)


async def test_what_outlives_a_request_does_not_carry_its_id(
    lines: list[dict[str, object]],
) -> None:
    """Tasks and threads that a request has started log in its name only while it is handled."""
    ended = asyncio.Event()

    async def outlive() -> None:
        logging.getLogger("app.x").info("inside")
        await ended.wait()
        logging.getLogger("app.x").info("outside")

    with request_scope("r8"):
        task = asyncio.create_task(outlive())
        await asyncio.sleep(0)
    ended.set()
    await task
    assert [(line["message"], line.get("request_id")) for line in lines] == [
        ("inside", "r8"),
        ("outside", None),
    ]


async def test_a_signal_belongs_to_no_request(lines: list[dict[str, object]]) -> None:
    """Whichever request is handled as it arrives: what it starts is not logged in its name."""
    before = {sig: signal.getsignal(sig) for sig in (signal.SIGTERM, signal.SIGINT)}
    lifecycle = Lifecycle()
    server = Server(uvicorn.Config(shell_app(), log_config=None), lifecycle, drain_s=0.0)
    try:
        with server.capture_signals(), request_scope("r9"):
            signal.raise_signal(signal.SIGTERM)
            while not lifecycle.is_terminal:
                await asyncio.sleep(0)
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
    assert [line["message"] for line in lines] == ["draining", "stopped"]
    assert not [line for line in lines if "request_id" in line]


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()], ids=["json", "text"])
def test_control_characters_are_escaped(formatter: logging.Formatter) -> None:
    """A newline or an ANSI code in a logged value can neither forge a line nor move a cursor."""
    line = formatter.format(record("a\nb", model="x\r\n\x1b[2Jy\u2028z\x9b"))
    assert line.isascii()
    assert line.isprintable()


def test_a_line_says_when_and_what() -> None:
    """Both formats carry the same facts."""
    made = record("ready", model="m")
    made.created = 1_764_000_000.25
    entry = json.loads(JsonFormatter().format(made))
    assert entry == {
        "time": "2025-11-24T16:00:00.250Z",
        "level": "info",
        "logger": "app.x",
        "message": "ready",
        "model": "m",
    }
    text = TextFormatter().format(made)
    assert text == "2025-11-24T16:00:00.250Z INFO     app.x: ready model=m"


def test_a_terminal_is_told_in_few_words() -> None:
    """The time of day, what was asked, and the facts that matter; warnings are coloured."""
    made = record("request", method="POST", route="/v1/score", status=200, duration_ms=1.5)
    formatter = ConsoleFormatter()
    with request_scope("of no interest"):
        assert formatter.format(made).endswith(
            "\x1b[0m POST /v1/score 200 in 1.5 ms\x1b[0m\x1b[2m\x1b[0m"
        )
    failed = record("request", method="POST", route="/v1/score", status=422, duration_ms=1.5)
    with request_scope("to be asked about"):
        assert "request_id=to be asked about" in formatter.format(failed)
    made = record("odd", weight="x")
    made.levelname = "WARNING"
    assert "\x1b[33modd\x1b[0m\x1b[2m weight=x\x1b[0m" in formatter.format(made)
    assert formatter.format(record("a\nb", plain=True)) == "a\nb"


def test_colours_are_left_out_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NO_COLOR and a dumb terminal ask for."""
    line = ConsoleFormatter(colours=False).format(record("ready", model="m"))
    assert "\x1b" not in line
    assert line.endswith(" ready model=m")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colours()
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colours()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colours()


def test_a_client_drives_no_terminal() -> None:
    """What it sends is spelled out between the colours."""
    line = ConsoleFormatter().format(record("a\nb", model="x\r\n\x1b[2Jy\u2028z\x9b"))
    assert re.sub(r"\x1b\[\d*m", "", line).isprintable()


@pytest.mark.parametrize(
    ("style", "is_terminal", "chosen"),
    [("auto", True, "console"), ("auto", False, "json"), ("text", True, "text")],
)
def test_the_format_is_that_of_the_reader(
    style: Any, is_terminal: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless one is asked for."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    assert chosen_format(style) == chosen


def test_a_traceback_stays_on_its_json_line() -> None:
    """Log collectors that split at newlines keep one event whole."""
    made = record("bad")
    try:
        raise ValueError("why")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "ValueError: why" in json.loads(line)["traceback"]
    assert "ValueError: why" in TextFormatter().format(made)


async def test_requests_are_counted_by_route_and_status(client: httpx.AsyncClient) -> None:
    """Counts and durations go by the template that matched."""
    for name in ("a", "b", "c"):
        await client.post(f"/work/{name}", json={})
    await client.post("/work/a", json={"seconds": "x"})
    found = await scrape(client)
    assert found["chainrule_requests_total", ("POST", "/work/{name}", "200")] == 3
    assert found["chainrule_requests_total", ("POST", "/work/{name}", "422")] == 1
    assert found["chainrule_request_seconds_count", ("/work/{name}",)] == 4


IN_HISTOGRAMS = (
    *("batch_size_counts", "batch_seconds_counts", "queue_seconds_counts"),
    *("first_batches", "queue_s"),
)


def samples_of(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample: name and label values -> value."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def stats_of(sizes: list[int], seconds: list[float]) -> EngineStats:
    """An engine that has run forwards of these sizes, and requests that waited so long."""
    by_size, by_wait = EngineStats().batch_size_counts, EngineStats().queue_seconds_counts
    for size in sizes:
        by_size = with_value(by_size, BATCH_SIZE_BOUNDS, size)
    for one in seconds:
        by_wait = with_value(by_wait, SECONDS_BOUNDS, one)
    return EngineStats(
        batches=len(sizes),
        batch_tokens=sum(sizes),
        batch_size_counts=by_size,
        first_batches=len(seconds),
        queue_s=sum(seconds),
        queue_seconds_counts=by_wait,
        cached_tokens=30,
        waiting_requests=4,
        running_requests=2,
        cache_slots=200,
        cache_slots_used=190,
        cache_slots_pinned=50,
    )


def test_forwards_and_waits_are_histograms() -> None:
    """Buckets hold what is not larger than they are; the last one holds all."""
    found = samples_of(Metrics(lambda: stats_of([1, 2, 3, 100_000], [0.25, 99.0])))
    name = "chainrule_batch_size_tokens_bucket"
    sizes = {float(labels[0]): value for (one, labels), value in found.items() if one == name}
    assert [sizes[bound] for bound in (1, 2, 4, 65_536, math.inf)] == [1, 2, 3, 3, 4]
    assert found["chainrule_batch_size_tokens_sum", ()] == 100_006
    assert found["chainrule_batch_size_tokens_count", ()] == 4
    name = "chainrule_request_queue_seconds_bucket"
    waits = {float(labels[0]): value for (one, labels), value in found.items() if one == name}
    assert [waits[bound] for bound in (0.1, 0.25, 60, math.inf)] == [0, 1, 1, 2]
    assert found["chainrule_request_queue_seconds_sum", ()] == 99.25
    assert found["chainrule_batch_seconds_count", ()] == 0


def test_what_is_only_kept_is_not_in_the_usage_of_the_cache() -> None:
    """A full cache of idle contexts is no load."""
    found = samples_of(Metrics(lambda: stats_of([], [])))
    assert found["chainrule_kv_usage_ratio", ()] == 0.25
    assert samples_of(Metrics(EngineStats))["chainrule_kv_usage_ratio", ()] == 0


def test_the_model_is_told_once_it_is_loaded() -> None:
    """With its fingerprint, by which replicas that differ are found."""
    model: ModelInfo | None = None
    metrics = Metrics(EngineStats, model=lambda: model)
    assert "chainrule_build_info{" not in metrics.render().decode()
    model = INFO
    (line,) = [
        sample
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == "chainrule_build_info"
    ]
    assert line.value == 1
    assert line.labels == {
        "version": version(),
        "model": "stub",
        "fingerprint": INFO.fingerprint,
        "architecture": "StubForCausalLM",
        "dtype": "float32",
        "device": "cpu",
        "kernels": "torch",
    }


def test_vllms_names_are_spoken_where_they_are_asked_for() -> None:
    """Its routers take waiting and running requests, cache usage, and prefix hits by model."""
    stats = stats_of([10, 20], [])
    metrics = Metrics(lambda: stats, model=lambda: INFO, dialect="vllm")
    label = ("0", "stub")
    found = {key: value for key, value in samples_of(metrics).items() if key[0].startswith("vllm")}
    assert found == {
        ("vllm:num_requests_waiting", label): 4,
        ("vllm:num_requests_running", label): 2,
        ("vllm:kv_cache_usage_perc", label): 0.25,
        ("vllm:gpu_cache_usage_perc", label): 0.25,
        ("vllm:prefix_cache_queries_total", label): 60,
        ("vllm:prefix_cache_hits_total", label): 30,
        ("vllm:gpu_prefix_cache_queries_total", label): 60,
        ("vllm:gpu_prefix_cache_hits_total", label): 30,
        ("vllm:cache_config_info", ("1", "True", "0", "stub", "200")): 1,
    }
    assert "vllm" not in Metrics(lambda: stats, model=lambda: INFO).render().decode()
    assert "vllm" not in Metrics(lambda: stats, dialect="vllm").render().decode()


def test_the_process_is_measured() -> None:
    """Memory and open files under the names that all exporters have for them."""
    found = {name for name, _ in samples_of(Metrics(EngineStats))}
    names = ("resident_memory_bytes", "start_time_seconds", "open_fds", "cpu_seconds_total")
    assert {f"process_{name}" for name in names} <= found


async def test_tokens_and_rows_are_counted_by_route() -> None:
    """As the answer's usage has them."""
    async with client_of(shell_app(FakeEngine())) as client:
        body = {"context": "it is", "candidates": [" yes", " no"]}
        usage = (await client.post("/v1/score", json=body)).json()["usage"]
        assert (await client.post("/v1/score", json={"context": "it is"})).status_code == 422
        found = await scrape(client)
    assert found["chainrule_request_rows_total", ("/v1/score",)] == usage["scored_tokens"] > 0
    for kind in ("computed", "cached"):
        counted = found["chainrule_request_tokens_total", (kind, "/v1/score")]
        assert counted == usage[f"{kind}_tokens"]


async def test_rejections_are_counted_by_reason(engine: StubEngine) -> None:
    """By the code of the error; what is wrong in itself is none."""
    app = shell_app(engine, api_keys="key", max_body_bytes=100)
    key = {"Authorization": "Bearer key"}
    async with client_of(app) as client:
        await client.post("/work/x", json={})
        await client.post("/v1/score", json={})
        await client.post("/work/x", content=b"x" * 101, headers=key)
        await client.post("/work/x", json={"seconds": "x"}, headers=key)
        await client.get("/nowhere", headers=key)
        metrics = await asyncio.to_thread(samples_of, app.state.metrics)
    name = "chainrule_rejections_total"
    assert {labels: value for (one, labels), value in metrics.items() if one == name} == {
        ("invalid_api_key",): 2,
        ("body_too_large",): 1,
    }
    assert metrics["chainrule_requests_total", ("POST", "/v1/score", "401")] == 1


async def test_the_access_log_names_the_error(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of a request that failed has its code."""
    await client.get("/nowhere")
    (line,) = access_lines(caplog)
    assert line["error"] == "not_found"


@pytest.mark.parametrize("needs_key", [True, False])
async def test_a_key_for_the_metrics_is_a_setting(engine: StubEngine, needs_key: bool) -> None:
    """Without one they are open to any scraper; nothing else is."""
    app = shell_app(engine, api_keys="key", metrics_key=needs_key)
    async with client_of(app) as client:
        for path in ("/metrics", "/metrics?x=1"):
            assert (await client.get(path)).status_code == (401 if needs_key else 200)
            assert (await client.head(path)).status_code == (401 if needs_key else 200)
        for path in ("/v1/models", "/version", "//metrics", "/metrics/"):
            assert (await client.get(path)).status_code == 401


async def test_the_engine_is_reported_as_it_counts_itself(engine: StubEngine) -> None:
    """Every counter and gauge of the engine appears under its name."""
    numbers = {
        name: index + 2
        for index, name in enumerate(vars_of(engine))
        if name not in ("ready", "alive", "queued_requests", *IN_HISTOGRAMS)
    }
    async with client_of(shell_app(engine)) as client:
        engine.counters = replace(engine.counters, **numbers)
        found = await scrape(client)
    values = {name: value for (name, labels), value in found.items() if not labels}
    for name, value in numbers.items():
        shown = name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name
        assert not name.endswith("_counts"), name
        shared = {f"chainrule_{shown}", f"chainrule_{shown}_total"} & set(values)
        assert [values[one] for one in shared] == [value], name
    assert values["chainrule_ready"] == values["chainrule_alive"] == 1
    assert values["chainrule_queued_requests"] == 0


def vars_of(engine: StubEngine) -> list[str]:
    """The names of what an engine counts."""
    return list(engine.counters.__dataclass_fields__)


async def test_no_client_can_make_a_new_label(client: httpx.AsyncClient) -> None:
    """Paths, methods and names of a client's choosing fall under labels that exist already."""

    async def provoke(start: int) -> int:
        for number in range(start, start + 20):
            await client.get(f"/unknown/{number}")
            await client.post(f"/work/{number}", json={})
            await client.get(f"/v1/models/{number}")
            await client.request(f"M{number}", "/work/x")
            await client.get("/docs", params={"q": number})
            await client.get("/docs/../docs")
        return len(await scrape(client))

    await scrape(client)  # the scrape is a request too, and shows in the next one
    first = await provoke(0)
    assert await provoke(100) == first


async def test_apps_do_not_share_metrics(engine: StubEngine) -> None:
    """Two apps in one process count on their own."""
    async with client_of(shell_app(engine)) as one, client_of(shell_app(StubEngine())) as two:
        await one.post("/work/x", json={})
        counted = ("chainrule_requests_total", ("POST", "/work/{name}", "200"))
        assert counted in await scrape(one)
        assert counted not in await scrape(two)


async def test_metrics_are_served_as_prometheus_reads_them(client: httpx.AsyncClient) -> None:
    """The content type names the text format and its version."""
    response = await client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_a_counter_is_one_series(client: httpx.AsyncClient) -> None:
    """No counter brings its birth time along as a second series."""
    await client.post("/work/x", json={})
    assert not [name for name, _ in await scrape(client) if name.endswith("_created")]


async def test_searches_are_counted_by_strategy() -> None:
    """What ran, and how often a proof was not reached."""
    async with client_of(shell_app(FakeEngine())) as client:
        for body in (
            {},
            {"stream": True},
            {"strategy": "exact", "max_tokens": 2},
            {"strategy": "exact", "max_expansions": 1, "num_beams": 1},
            {"compare": ["greedy", "beam"]},
            {"strategy": "sample"},
        ):
            await client.post("/v1/decode", json={"context": "it is", **body})
        found = await scrape(client)
    name = "chainrule_decodes_total"
    assert {labels: value for (one, labels), value in found.items() if one == name} == {
        ("greedy", "false"): 1,
        ("greedy", "true"): 1,
        ("exact", "false"): 2,
        ("compare", "false"): 1,
    }
    assert found["chainrule_unproven_decodes_total", ()] == 1


def test_finished_scores_are_reported_as_they_are_counted() -> None:
    """Every counter of the score cache appears under its name, read when it is asked for."""
    counted = ScoreCacheStats()
    metrics = Metrics(EngineStats, lambda: counted)
    counted = ScoreCacheStats(hits=2, misses=3, shared=4, bytes=5)
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    assert {name: value for name, value in found.items() if "score" in name} == {
        "chainrule_score_cache_hits_total": 2,
        "chainrule_score_cache_misses_total": 3,
        "chainrule_shared_scores_total": 4,
        "chainrule_score_cache_bytes": 5,
    }
