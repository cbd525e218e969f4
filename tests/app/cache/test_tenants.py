"""Whose computation a request may share, told by what it costs: over HTTP, on a real model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from model_runtime import Engine, EngineConfig
from tests.app.calls import BODIES
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

CONTEXT = "The capital of France is Paris. The capital of Japan is"
FIRST, SECOND = {"Authorization": "Bearer first"}, {"Authorization": "bearer  second"}
VERBS = tuple(BODIES)

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serve(tiny_folder: TinyFolder) -> Serve:
    """A server of a tiny model with these settings, of which nothing is computed yet."""

    @asynccontextmanager
    async def started(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=1 << 20)
        async with client_of(shell_app(Engine.load(config), **settings)) as client:
            yield client

    return started


async def usage(
    client: httpx.AsyncClient, verb: str, headers: dict[str, str] | None = None, **fields: Any
) -> dict[str, int]:
    """What a request behind the common context cost."""
    body = {**BODIES[verb], "context": CONTEXT, **fields}
    response = await client.post(f"/v1/{verb}", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json()["usage"])


async def cached(client: httpx.AsyncClient, verb: str, *args: Any, **fields: Any) -> int:
    """How many of its tokens were there already."""
    return (await usage(client, verb, *args, **fields))["cached_tokens"]


@pytest.mark.parametrize("verb", VERBS)
async def test_salts_share_nothing(serve: Serve, verb: str) -> None:
    """A context is found by those who give the same salt, by nobody else, and on any route."""
    async with serve() as client:
        assert await cached(client, verb, cache_salt="a") == 0
        assert await cached(client, verb, cache_salt="b") == 0
        assert await cached(client, verb) == 0
        for again in VERBS:
            assert await cached(client, again, cache_salt="a") > 0


@pytest.mark.parametrize("verb", VERBS)
async def test_api_keys_share_nothing(serve: Serve, verb: str) -> None:
    """Of several keys each is a tenant of its own, whatever salts they give."""
    async with serve(api_keys="first,second") as client:
        assert await cached(client, verb, FIRST) == 0
        assert await cached(client, verb, SECOND) == 0
        assert await cached(client, verb, FIRST, cache_salt="a") == 0
        assert await cached(client, verb, SECOND, cache_salt="a") == 0
        assert await cached(client, verb, FIRST) > 0
        assert await cached(client, verb, SECOND, cache_salt="a") > 0


async def test_the_operator_may_let_keys_share(serve: Serve) -> None:
    """A setting says that the keys belong to one tenant; salts still hold."""
    async with serve(api_keys="first,second", share_cache_across_keys=True) as client:
        assert await cached(client, "score", FIRST) == 0
        assert await cached(client, "score", SECOND) > 0
        assert await cached(client, "score", SECOND, cache_salt="a") == 0


async def test_tenants_do_not_merge_inside_a_batch(serve: Serve) -> None:
    """What waits together is computed once for one tenant and once for each of two."""
    for second, computed_once in ((FIRST, True), (SECOND, False)):
        async with serve(api_keys="first,second") as client:
            # Other candidates: identical requests would not reach the batch.
            usages = await asyncio.gather(
                usage(client, "score", FIRST),
                usage(client, "score", second, candidates=[" maybe"]),
            )
            hits = sum(usage["cached_tokens"] for usage in usages)
            assert (hits > 0) == computed_once


async def test_no_score_depends_on_the_salt(serve: Serve) -> None:
    """Salts separate work, not answers."""
    async with serve() as client:
        bodies = [{**BODIES["score"], "cache_salt": salt} for salt in ("", "a", "b")]
        answers = [(await client.post("/v1/score", json=body)).json() for body in bodies]
        assert answers[0]["results"] == answers[1]["results"] == answers[2]["results"]
