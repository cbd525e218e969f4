"""The event loop serves everybody: no route waits on it or computes there for long.

Callbacks are timed by the CPU time of the loop's own thread, so that the bound holds on a machine
that is busy with something else. That nothing waits is seen to by the fixture of all these tests.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.schemas.bounds import MAX_CANDIDATES
from app.settings import Settings
from model_runtime import Engine, EngineConfig
from model_runtime.batching import planner
from model_runtime.scheduling import request as job
from model_runtime.scheduling.batcher import Batcher
from tests.app.conftest import client_of, shell_app
from tests.app.loop_watch import callback_seconds
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

BOUND_S = 0.2
"""CPU time of one callback. Most take less than a millisecond, the longest known some 20."""

STEP_S = 0.4
"""CPU time of the model thread between two looks for new work. It has some 0.1 with the largest
request there is, and more than 1 where ``MANY`` candidates are asked about at once."""

MANY = 65_536

APP = create_app(Settings())
DOCUMENT: dict[str, Any] = json.loads(json.dumps(APP.openapi()))
PAGES = [("get", path, None) for path in ("/docs", "/openapi.json", "/metrics", "/no/such/path")]


def requests() -> Iterator[tuple[str, str, Any]]:
    """Every route, with each of its documented examples where it takes a body."""
    yield from PAGES
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield from ((method, path, body) for body in _bodies(operation))


def _bodies(operation: dict[str, Any]) -> list[Any]:
    if "requestBody" not in operation:
        return [None]
    found = _examples(operation["requestBody"]["content"]["application/json"]["schema"])
    assert found, "a route without an example is not tried here"
    return found


def _examples(schema: dict[str, Any]) -> list[Any]:
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    others = [example for one in schema.get("oneOf", ()) for example in _examples(one)]
    return [*schema.get("examples", ()), *others]


@asynccontextmanager
async def real_client(folder: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app around an engine that computes."""
    config = EngineConfig(model=folder, kv_cache_bytes=8 << 20)
    async with client_of(shell_app(await asyncio.to_thread(Engine.load, config))) as client:
        yield client


async def test_no_route_keeps_the_loop(tiny_folder: TinyFolder) -> None:
    """Each answers, in callbacks that are short."""
    kept = []
    async with real_client(str(tiny_folder("llama"))) as client:
        for method, path, body in requests():
            with callback_seconds() as seconds:
                call = client.request(method.upper(), path, json=body)
                response = await asyncio.create_task(call)
            assert response.status_code < 500, (path, body, response.text)
            if max(seconds) >= BOUND_S:
                kept.append((path, body, max(seconds)))
    assert kept == []


def step_seconds(patch: pytest.MonkeyPatch) -> list[float]:
    """A list of the CPU seconds of each step of the model thread, as they pass."""
    seconds: list[float] = []

    def timed(step: Callable[[Batcher], Any]) -> Callable[[Batcher], Any]:
        def run(batcher: Batcher) -> Any:
            began = time.thread_time()
            try:
                return step(batcher)
            finally:
                seconds.append(time.thread_time() - began)

        return run

    patch.setattr(Batcher, "collect_finished", timed(Batcher.collect_finished))
    patch.setattr(Batcher, "forward", timed(Batcher.forward))
    return seconds


def body_of(count: int, **more: Any) -> bytes:
    """A request of so many candidates, all different."""
    candidates = [[1 + i // 370, 1 + i % 370] for i in range(count)]
    body = {"context": [5] * 32, "candidates": candidates, "compact": True}
    return json.dumps({**body, **more}, separators=(",", ":")).encode()


async def post(client: httpx.AsyncClient, content: bytes) -> httpx.Response:
    """The answer to /v1/score, in a task of its own."""
    headers = {"Content-Type": "application/json"}
    return await asyncio.create_task(client.post("/v1/score", content=content, headers=headers))


@pytest.mark.parametrize("more", [{}, {"top_n": 10}], ids=["all", "top"])
async def test_the_largest_request_keeps_nobody_waiting(
    tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """Neither the event loop nor the model thread is away for long, and health is answered."""
    async with real_client(str(tiny_folder("llama"))) as client:
        steps = step_seconds(monkeypatch)
        with callback_seconds() as callbacks:
            asked = asyncio.create_task(post(client, body_of(MAX_CANDIDATES, **more)))
            healthy = 0
            while not asked.done():
                assert (await client.get("/health/live")).status_code == 200
                healthy += 1
                await asyncio.sleep(0.01)
            response = await asked
    assert response.status_code == 200
    assert healthy > 20
    assert max(callbacks) < BOUND_S
    assert max(steps) < STEP_S


async def test_the_largest_request_in_one_round_would_be_noticed(
    tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control: asked and planned as a whole it keeps the model thread."""
    monkeypatch.setattr(job, "QUERIES_AT_ONCE", MANY)
    monkeypatch.setattr(planner, "MOST_WORK", MANY)
    async with real_client(str(tiny_folder("llama"))) as client:
        steps = step_seconds(monkeypatch)
        assert (await post(client, body_of(MANY))).status_code == 200
    assert max(steps) > STEP_S
