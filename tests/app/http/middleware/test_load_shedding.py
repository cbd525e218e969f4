"""Requests that are refused before their bodies are read, since the queue is full."""

from __future__ import annotations

import httpx
import pytest

from app.http.json_body import JsonRoute
from app.main import COMPATIBLE, NATIVE
from model_runtime import EngineOverloaded, Priority
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

READ = {
    "/v1/completions": "waits for its turn instead of being refused",
    "/v1/chat/completions": "waits for its turn instead of being refused",
    "/v1/completions/render": "needs no engine",
    "/v1/chat/completions/render": "needs no engine",
    "/tokenize": "needs no engine",
    "/detokenize": "needs no engine",
}
"""Routes that are never full, and why."""

NO_JSON = b'{"context": '


class FullEngine(FakeEngine):
    """Has no room."""

    def check_room(self, priority: Priority = Priority.INTERACTIVE) -> None:
        """There is none."""
        raise EngineOverloaded("the queue is full", retry_after_s=7.0)


def routes_with_bodies() -> list[str]:
    """Every path that takes a body."""
    routes = [route for source in NATIVE + COMPATIBLE for route in source.router.routes]
    return [r.path for r in routes if isinstance(r, JsonRoute) and r.body_field is not None]


async def send(client: httpx.AsyncClient, path: str) -> httpx.Response:
    """A body that cannot be read: whoever reads it answers 400."""
    return await client.post(path, content=NO_JSON, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("path", routes_with_bodies())
async def test_a_full_queue_refuses_unread(path: str) -> None:
    """Every route whose work needs a place in the queue, and no other."""
    async with client_of(shell_app(FullEngine())) as client:
        response = await send(client, path)
    assert response.status_code == (400 if path in READ else 429)
    assert response.headers.get("Retry-After") == (None if path in READ else "7")


async def test_a_refusal_counts_under_its_route() -> None:
    """As if the route itself had refused it."""
    async with client_of(shell_app(FullEngine())) as client:
        await send(client, "/v1/score")
        metrics = (await client.get("/metrics")).text
    assert '{method="POST",route="/v1/score",status="429"} 1.0' in metrics


async def test_every_request_is_read_where_scores_are_kept() -> None:
    """What the score cache answers needs no place in the queue."""
    async with client_of(shell_app(FullEngine(), score_cache_bytes=1 << 20)) as client:
        assert (await send(client, "/v1/score")).status_code == 400


async def test_where_there_is_room_everything_is_read() -> None:
    """As if nobody had asked."""
    async with client_of(shell_app(FakeEngine())) as client:
        assert (await send(client, "/v1/score")).status_code == 400


async def test_nothing_is_full_while_the_engine_is_loaded() -> None:
    """The request is read, and told that there is no engine yet, or what is wrong with it."""

    def load() -> FakeEngine:
        raise RuntimeError("never comes")

    async with client_of(shell_app(load=load)) as client:
        assert (await send(client, "/v1/score")).status_code == 400
