"""What every answer carries, whoever gave it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from model_runtime import Engine
from tests.app.conftest import client_of, shell_app
from tests.app.stub_engine import StubEngine

pytestmark = pytest.mark.anyio

NAME = "X-Chainrule-Fingerprint"


async def test_every_answer_carries_the_fingerprint(engine: StubEngine) -> None:
    """Successes, refusals of every layer, probes, and what is said while draining."""
    app = shell_app(engine, api_keys="secret")
    key = {"Authorization": "Bearer secret"}
    async with client_of(app) as client:
        answers = [
            await client.post("/work/x", json={}, headers=key),
            await client.post("/work/x", json={}),
            await client.post("/v1/score", json={"context": 1}, headers=key),
            await client.get("/nothing/here", headers=key),
            await client.get("/health/ready"),
            await client.get("/metrics", headers=key),
        ]
        running = asyncio.create_task(client.post("/work/x", json={"seconds": 0.1}, headers=key))
        while not engine.working:
            await asyncio.sleep(0)
        app.state.lifecycle.request_stop(5.0)
        await asyncio.sleep(0)
        answers += [await client.post("/work/x", json={}, headers=key), await running]
    assert [one.status_code for one in answers] == [200, 401, 422, 404, 200, 200, 503, 200]
    assert {one.headers.get(NAME) for one in answers} == {engine.info.fingerprint}


async def test_there_is_no_fingerprint_before_there_is_a_model(engine: StubEngine) -> None:
    """While the model is loaded nothing is claimed; afterwards it is."""
    loaded = threading.Event()

    def load() -> Engine:
        loaded.wait()
        return engine  # type: ignore[return-value]  # it has the engine's methods

    app = shell_app(load=load)
    async with client_of(app) as client:
        early = await client.get("/health/ready")
        loaded.set()
        while not app.state.lifecycle.is_ready:
            await asyncio.sleep(0.001)
        late = await client.get("/health/ready")
    assert (early.status_code, NAME in early.headers) == (503, False)
    assert (late.status_code, late.headers[NAME]) == (200, engine.info.fingerprint)
