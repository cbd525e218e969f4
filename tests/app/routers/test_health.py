"""Liveness means progress, readiness means that work may be sent."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import httpx
import pytest

from app.telemetry.thread_stacks import MAX_FRAMES
from model_runtime import Engine, EngineStalled, ModelNotFound
from tests.app.conftest import client_of, shell_app
from tests.app.stub_engine import StubEngine

pytestmark = pytest.mark.anyio

QUEUE = (
    "queued_requests",
    "queued_tokens",
    "queued_seconds",
    "waiting_requests",
    "running_requests",
)


async def statuses(client: httpx.AsyncClient) -> tuple[int, int, int, str]:
    """What live, ready and health answer, and the phase."""
    live = await client.get("/health/live")
    ready = await client.get("/health/ready")
    health = await client.get("/health")
    return live.status_code, ready.status_code, health.status_code, health.json()["status"]


async def test_a_ready_server_says_so(client: httpx.AsyncClient) -> None:
    """Live, ready and healthy, with the model's name and an empty queue."""
    assert await statuses(client) == (200, 200, 200, "ready")
    report = (await client.get("/health")).json()
    assert report["model"] == "stub"
    assert report["queue"] == dict.fromkeys(QUEUE, 0)


async def test_a_loading_server_is_live_and_not_ready(engine: StubEngine) -> None:
    """While the model loads on its thread, probes answer and requests are told to come back."""
    loaded = threading.Event()

    def load() -> Engine:
        loaded.wait(10)
        return engine  # type: ignore[return-value]

    app = shell_app(load=load)
    async with client_of(app) as client:
        assert await statuses(client) == (200, 503, 503, "loading")
        assert "model" not in (await client.get("/health")).json()
        assert int((await client.get("/health/ready")).headers["Retry-After"]) >= 1
        refused = await client.post("/work/x", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert int(refused.headers["Retry-After"]) >= 1
        loaded.set()
        await until_ready(client)
        assert await statuses(client) == (200, 200, 200, "ready")
        assert "Retry-After" not in (await client.get("/health/ready")).headers
        assert (await client.post("/work/x", json={})).status_code == 200


async def until_ready(client: httpx.AsyncClient) -> None:
    """Ask until the answer is 200."""
    while (await client.get("/health/ready")).status_code != 200:
        await asyncio.sleep(0.001)  # in process, an answer alone does not let the loop go round


@pytest.mark.parametrize("cause", [ModelNotFound("no such\nmodel"), ValueError("what?")])
async def test_a_failed_load_is_never_ready(
    cause: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Liveness fails, so the process is replaced, and one line says why."""

    def load() -> Engine:
        raise cause

    app = shell_app(load=load)
    async with client_of(app) as client:
        while not app.state.lifecycle.is_terminal:
            assert (await client.get("/health/ready")).status_code == 503
            await asyncio.sleep(0.001)
        assert await statuses(client) == (503, 503, 503, "failed")
    assert app.state.lifecycle.exit_code == 1
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    assert line.startswith("cannot serve the model: ")
    assert "\n" not in line


async def test_ready_waits_for_the_engine_itself(engine: StubEngine) -> None:
    """An engine that is started and not yet warm does not count as ready."""
    async with client_of(shell_app(engine)) as client:
        engine.counters = replace(engine.counters, ready=False)
        assert await statuses(client) == (200, 503, 503, "ready")


async def test_an_engine_without_progress_fails_liveness(engine: StubEngine) -> None:
    """A model thread that hangs shows in liveness, although the event loop answers."""
    async with client_of(shell_app(engine)) as client:
        engine.counters = replace(engine.counters, alive=False)
        assert (await statuses(client))[0] == 503


async def test_readiness_falls_while_a_forward_makes_no_progress(engine: StubEngine) -> None:
    """Long before it is given up no work is sent here, the probe says why, and it recovers."""
    async with client_of(shell_app(engine)) as client:
        engine.counters = replace(engine.counters, ready=False, stalled_s=12.0)
        assert (await statuses(client))[:2] == (200, 503)
        assert (await client.get("/health/ready")).json() == {
            "status": "unavailable",
            "reason": "the model has made no progress for 12 seconds",
        }
        engine.counters = replace(engine.counters, ready=True, stalled_s=0.0)
        assert (await client.get("/health/ready")).json() == {"status": "ok"}


async def test_a_forward_that_hangs_ends_it_all(
    engine: StubEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The stacks of all threads are logged, and the process is not to wait for the one."""
    release = threading.Event()
    hanging = threading.Thread(target=release.wait, name="hanging")
    hanging.start()
    app = shell_app(engine)
    async with client_of(app) as client:
        engine.die(EngineStalled("no step for 120 s"))
        while not app.state.lifecycle.is_terminal:
            await asyncio.sleep(0.001)
        assert await statuses(client) == (503, 503, 503, "failed")
    release.set()
    hanging.join()
    assert app.state.lifecycle.exit_code == 1
    assert app.state.lifecycle.has_abandoned_threads
    stacks = {r.of: r.stack for r in caplog.records if r.getMessage() == "thread stack"}  # type: ignore[attr-defined]
    assert stacks["hanging"][-1].endswith(" wait")
    assert stacks["MainThread"][-1].endswith(" log_thread_stacks")
    assert all(len(stack) <= MAX_FRAMES for stack in stacks.values())


async def test_a_dead_engine_fails_liveness_for_good(engine: StubEngine) -> None:
    """When the model thread has died, nothing is ready any more and requests are told so."""
    app = shell_app(engine)
    async with client_of(app) as client:
        await client.post("/die")
        while not app.state.lifecycle.is_terminal:
            await asyncio.sleep(0.001)
        assert await statuses(client) == (503, 503, 503, "failed")
        refused = await client.post("/work/x", json={})
        assert refused.status_code == 503
    assert app.state.lifecycle.exit_code == 1


async def test_health_shows_the_queue(engine: StubEngine) -> None:
    """The summary carries the engine's own figures."""
    engine.counters = replace(
        engine.counters,
        queued_tokens=70,
        running_requests=2,
        waiting_requests=3,
        queued_seconds=1.25,
    )
    async with client_of(shell_app(engine)) as client:
        queue = (await client.get("/health")).json()["queue"]
    assert queue == dict(zip(QUEUE, (0, 70, 1.25, 3, 2), strict=True))


async def test_health_and_metrics_answer_while_hundreds_wait(engine: StubEngine) -> None:
    """Probes stand in no queue: they answer in a fraction of 100 ms however much waits."""
    loop = asyncio.get_running_loop()
    async with client_of(shell_app(engine)) as client:
        work = [
            asyncio.create_task(client.post("/work/x", json={"seconds": 30})) for _ in range(300)
        ]
        while engine.working < len(work):
            await asyncio.sleep(0.001)
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            times = []
            for _ in range(5):
                began = loop.time()
                assert (await client.get(path)).status_code == 200
                times.append(loop.time() - began)
            assert min(times) < 0.1
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    assert engine.working == 0
