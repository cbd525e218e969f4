"""No client makes a metric, or memory, grow by the names that it makes up."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.metrics import UNKNOWN_ROUTE, Metrics
from model_runtime import EngineStats
from tests.app.compat.decisions.decision_calls import chat_engine
from tests.app.conftest import client_of, shell_app

KEYS = ["key-1", "key-2"]
ROUNDS = 40
MILLION = 1_000_000


def requests(client: httpx.AsyncClient, number: int) -> Iterator[Awaitable[httpx.Response]]:
    """One request for each name that a client may choose, each made up of the number."""
    name, key = f"name-{number}", {"Authorization": f"Bearer {KEYS[number % 2]}"}
    body = {"context": "it is", "candidates": [" yes"]}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/score", {**body, "cache_salt": name}),
        ("/v1/score", {**body, "model": name}),
        ("/v1/score", {**body, name: 1}),
        ("/v1/decode", {"context": "it is", "max_tokens": 1, "strategy": name}),
        ("/v1/decisions", {"input": "it", "questions": [], "prompt_cache_key": name}),
        ("/v1/completions", {"prompt": "it is", "max_tokens": 1, "user": name}),
    ]
    for path, one in bodies:
        yield client.post(path, json=one, headers=key)
    yield client.get("/health", headers={"Authorization": f"Bearer {name}"})
    yield client.post("/v1/score", json=body, headers={"Authorization": f"Bearer {name}"})
    yield client.get("/health", headers={"X-Request-Id": name, "Host": f"{name}.test"})
    yield client.get(f"/v1/models/{name}", headers=key)
    yield client.get(f"/{name}", headers=key)
    yield client.get("/docs", params={"q": name}, headers=key)
    yield client.request(name.upper(), "/v1/score", headers=key)
    yield client.request(name.upper(), f"/v1/models/{name}", headers=key)


async def samples(client: httpx.AsyncClient) -> int:
    """How many time series there are."""
    text = (await client.get("/metrics", headers={"Authorization": f"Bearer {KEYS[0]}"})).text
    return sum(len(family.samples) for family in text_string_to_metric_families(text))


@pytest.mark.anyio
async def test_names_make_neither_series_nor_memory() -> None:
    """Tenants, models, keys, paths, methods, fields: once all kinds were there, nothing grows."""
    engine = chat_engine()
    async with client_of(shell_app(engine, api_keys=",".join(KEYS))) as client:

        async def ask(numbers: range) -> tuple[int, int]:
            """How many series and objects there are behind these requests."""
            for number in numbers:
                for request in requests(client, number):
                    assert (await request).status_code < 500
                engine.queries.clear()
                engine.options.clear()
            found = await samples(client)
            gc.collect()
            return found, sys.getallocatedblocks()

        await samples(client)  # the scrape is a request too, and shows in the next one
        # The first ones fill caches of a bounded size, of the client's libraries above all.
        series, held = await ask(range(ROUNDS))
        later, grown = await ask(range(ROUNDS, 2 * ROUNDS))
    assert later == series
    # A new series is some fifty objects.
    assert grown - held < 10 * ROUNDS


def test_a_million_paths_are_one_label() -> None:
    """What the router does not know has one name, and a parameter keeps its own."""
    route = type("Route", (), {"path": "/v1/models/{name:path}"})()
    unknown: dict[str, Any] = {"type": "http"}
    known: dict[str, Any] = {"type": "http", "route": route}
    metrics, labels = Metrics(EngineStats), set()
    for number in range(MILLION):
        unknown["path"] = known["path"] = f"/v1/models/{number}"
        labels |= {metrics.route_of(unknown), metrics.route_of(known)}
    assert labels == {UNKNOWN_ROUTE, route.path}
