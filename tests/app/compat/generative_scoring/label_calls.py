"""Generative scoring as calls, in the words of two servers, over the law of ``fake_engine``."""

from __future__ import annotations

from typing import Any

import httpx

from tests.app.fake_engine import ToyTokenizer

VLLM, SGLANG = "/generative_scoring", "/v1/score"
YES, NO = (ToyTokenizer().id(text) for text in (" yes", " no"))

BODY: dict[str, Any] = {"query": "it", "items": [" is", "'t"], "label_token_ids": [YES, NO]}
"""Behind "it is" the law names both labels, behind "it't" neither."""


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> httpx.Response:
    """The response to ``BODY``, with ``body`` in place of its fields."""
    return await client.post(path, json={**BODY, **body})


async def ask(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    """The answer to a request that succeeds."""
    response = await post(client, path, **body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def scores(client: httpx.AsyncClient, path: str, **body: Any) -> list[float]:
    """The first label's number for each item, whoever's shape it is."""
    answer = await ask(client, path, **body)
    if path == VLLM:
        return [one["score"] for one in answer["data"]]
    return [first for first, *_ in answer["scores"]]


async def refusal(
    client: httpx.AsyncClient, path: str, status: int = 422, **body: Any
) -> dict[str, Any]:
    """The error object of a request that fails."""
    response = await post(client, path, **body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])
