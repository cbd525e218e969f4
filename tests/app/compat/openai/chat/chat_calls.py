"""Chats as calls."""

from __future__ import annotations

import json
from typing import Any

import httpx

PATH = "/v1/chat/completions"

USER = {"role": "user", "content": "a"}
TALK = [USER, {"role": "assistant", "content": "it is"}]
"""The law knows what follows."""


async def chat(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The answer to a request that succeeds, about ``TALK`` unless it says otherwise."""
    response = await client.post(PATH, json={"messages": TALK, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def choice_of(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The one choice of an answer."""
    (choice,) = (await chat(client, **body))["choices"]
    return dict(choice)


async def refused(client: httpx.AsyncClient, status: int = 422, **body: Any) -> dict[str, Any]:
    """The error object of a request that fails."""
    response = await client.post(PATH, json={"messages": TALK, **body})
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


async def chunks_of(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    """The pieces of a stream that ends as it should."""
    response = await client.post(PATH, json={"messages": TALK, **body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    *blocks, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def glued(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The choice that pieces make."""
    parts = [choice for chunk in chunks for choice in chunk["choices"]]
    listed = [part["logprobs"]["content"] for part in parts if part["logprobs"] is not None]
    return {
        "index": 0,
        "message": {
            "role": parts[0]["delta"]["role"],
            "content": "".join(part["delta"].get("content", "") for part in parts),
            "refusal": None,
        },
        "logprobs": {"content": [token for tokens in listed for token in tokens], "refusal": None}
        if listed
        else None,
        "finish_reason": parts[-1]["finish_reason"],
    }
