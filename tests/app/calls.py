"""The native routes as calls, over the law of ``fake_engine``."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import numpy as np

from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

YES, NO = " yes", " no"

BODIES: dict[str, dict[str, Any]] = {
    "score": {"context": "it is", "candidates": [YES, NO]},
    "next_token": {"context": "it is"},
    "decode": {"context": "it is"},
}
"""The smallest request of each verb."""


def log(probability: float) -> float:
    """The float32 log-probability that the engine gives."""
    return float(np.float32(math.log(probability)))


async def post(client: httpx.AsyncClient, verb: str, **body: Any) -> httpx.Response:
    """The response to the smallest request, with ``body`` in place of its fields."""
    # httpx would refuse to send NaN and half surrogate pairs; these are for the server to refuse.
    content = json.dumps({**BODIES[verb], **body})
    headers = {"Content-Type": "application/json"}
    return await client.post(f"/v1/{verb}", content=content, headers=headers)


async def call(client: httpx.AsyncClient, verb: str, **body: Any) -> dict[str, Any]:
    """The answer to a request that succeeds."""
    response = await post(client, verb, **body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def refusal(
    client: httpx.AsyncClient, verb: str, status: int = 422, **body: Any
) -> dict[str, Any]:
    """The error object of a request that fails."""
    response = await post(client, verb, **body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


async def score_with(engine: FakeEngine, **body: Any) -> dict[str, Any]:
    """Another engine's answer to /v1/score."""
    async with client_of(shell_app(engine)) as client:
        return await call(client, "score", **body)


async def refusal_of(engine: FakeEngine, status: int = 422, **body: Any) -> dict[str, Any]:
    """Another engine's refusal at /v1/score."""
    async with client_of(shell_app(engine)) as client:
        return await refusal(client, "score", status, **body)


def only(answer: dict[str, Any]) -> dict[str, Any]:
    """The one result of an answer to /v1/score."""
    (result,) = answer["results"]
    return dict(result)
