"""The rerank routes as calls, over the law of ``fake_engine`` or any other engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.app.conftest import client_of, shell_app

PLAIN = "{document}{query}"
"""A prompt whose numbers can be read off the law."""


@asynccontextmanager
async def reranking(engine: Any, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with these settings."""
    async with client_of(shell_app(engine, **settings)) as client:
        yield client


async def reply(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    """The answer to a request that succeeds."""
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def message(client: httpx.AsyncClient, path: str, status: int = 422, **body: Any) -> str:
    """What a request is refused with."""
    response = await client.post(path, json=body)
    assert response.status_code == status, response.text
    told = response.json()
    return str(told["error"] if path == "/rerank" else told["message"])


def scores(answer: dict[str, Any]) -> dict[int, float]:
    """The relevance of each returned document, by its index."""
    return {one["index"]: one["relevance_score"] for one in answer["results"]}
