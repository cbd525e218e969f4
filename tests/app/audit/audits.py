"""Calls of POST /v1/audit over hand-written laws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

YES, NO = " yes", " no"
BODY: dict[str, Any] = {"context": "it is", "candidates": [YES, NO]}
"""The smallest audit."""

TRAP: dict[str, dict[str, float]] = {
    " is": {YES: 0.5, NO: 0.25},
    YES: {NO: 0.125, YES: 0.0625},
    NO: {YES: 0.75, NO: 0.125},
}
"""Behind " is", " yes" is the likelier token and " no yes" the likelier pair of tokens."""


async def post_audit(engine: FakeEngine, settings: Mapping[str, Any], **body: Any) -> Any:
    """The response to the smallest audit, with ``body`` in place of its fields."""
    async with client_of(shell_app(engine, **settings)) as client:
        return await client.post("/v1/audit", json={**BODY, **body})


async def audit(engine: FakeEngine, **body: Any) -> dict[str, Any]:
    """The answer to an audit that succeeds."""
    response: httpx.Response = await post_audit(engine, {}, **body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def refusal(engine: FakeEngine, status: int = 422, **body: Any) -> dict[str, Any]:
    """The error object of an audit that fails."""
    response: httpx.Response = await post_audit(engine, {}, **body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])
