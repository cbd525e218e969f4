"""POST /v1/systemone as a call."""

from __future__ import annotations

from typing import Any

import httpx

NOUL: dict[str, Any] = {"type": "noul", "instructions": "It is so."}


def choice(**criteria: Any) -> dict[str, Any]:
    """Which of these options."""
    return {"type": "choice", "instructions": "Which?", "criteria": criteria}


def score(*criteria: Any) -> dict[str, Any]:
    """Which of these levels."""
    return {"type": "score", "instructions": "How much?", "criteria": list(criteria)}


async def post(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **body: Any
) -> httpx.Response:
    """The response to one noul about a state, with ``body`` in place of its fields."""
    smallest = {"state": "it", "questions": {"so": NOUL}}
    return await client.post("/v1/systemone", json=smallest | body, headers=headers)


async def ask(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **body: Any
) -> dict[str, Any]:
    """The answer to a request that succeeds."""
    response = await post(client, headers, **body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def refusal(client: httpx.AsyncClient, status: int = 422, **body: Any) -> dict[str, Any]:
    """The error object of a request that fails."""
    response = await post(client, **body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])
