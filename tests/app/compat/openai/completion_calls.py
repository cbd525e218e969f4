"""Completions as calls, and what lm-evaluation-harness reads out of their answers."""

from __future__ import annotations

import json
from typing import Any

import httpx

PATH = "/v1/completions"

HARNESS: dict[str, Any] = {
    "temperature": 0,
    "max_tokens": 1,
    "logprobs": 1,
    "seed": 1234,
    "echo": True,
}
"""What the harness sends beside prompts whose log-likelihoods it wants."""


async def complete(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The answer to a request that succeeds."""
    response = await client.post(PATH, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def choice_of(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The one choice of an answer."""
    (choice,) = (await complete(client, **body))["choices"]
    return dict(choice)


async def refused(client: httpx.AsyncClient, status: int = 422, **body: Any) -> dict[str, Any]:
    """The error object of a request that fails."""
    response = await client.post(PATH, json=body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


async def pieces_of(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    """The pieces of a stream that ends as it should."""
    response = await client.post(PATH, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    *blocks, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def glued(pieces: list[dict[str, Any]], index: int) -> dict[str, Any]:
    """One choice, put together from its pieces."""
    parts = [c for piece in pieces for c in piece["choices"] if c["index"] == index]
    listed = [part["logprobs"] for part in parts if part["logprobs"] is not None]
    return {
        "text": "".join(part["text"] for part in parts),
        "index": index,
        "logprobs": {
            name: [entry for columns in listed for entry in columns[name]] for name in listed[0]
        }
        if listed
        else None,
        "finish_reason": parts[-1]["finish_reason"],
    }


def harness_reading(choice: dict[str, Any], context_tokens: int) -> tuple[float, bool]:
    """The log-likelihood of what follows the context, and whether it is the greedy path.

    The last entry is the generated token; a token is greedy where nothing listed is above it.
    """
    listed = choice["logprobs"]
    logprobs = listed["token_logprobs"][context_tokens:-1]
    top = listed["top_logprobs"][context_tokens:-1]
    greedy = all(logprob == max(row.values()) for logprob, row in zip(logprobs, top, strict=True))
    return sum(logprobs), greedy
