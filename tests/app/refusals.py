"""A program: bad requests of every route to the app in this process, and what each is refused with.

``python -O`` must refuse the same. The requests are made from the OpenAPI document.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import httpx

from app.main import create_app
from app.settings import Settings
from tests.app.compat.decisions.decision_calls import ChatTokenizer
from tests.app.conftest import client_of
from tests.app.fake_engine import FakeEngine

VALUES: tuple[Any, ...] = (True, -1, 2**31, 1e308, "1", {})
"""What a field gets that it may not take."""

RAW = (b"", b"{", b"[]", b'"x"', b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff", 9000 * b"[")
"""Bodies of no request."""

Refusals = dict[str, tuple[int, Any]]
"""By request: the status, and the body where it is an error's."""


def bad_requests(document: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """A path and a body: the first example of each route with one field wrong, or missing."""
    for path, methods in document["paths"].items():
        if "requestBody" not in methods.get("post", {}):
            continue
        yield from ((path, raw) for raw in RAW)
        content = methods["post"]["requestBody"]["content"]["application/json"]
        for schema in _kinds(content["schema"], document):
            bodies = _spoilt(schema.get("examples", [{}])[0], schema["properties"])
            yield from ((path, json.dumps(body).encode()) for body in bodies)


def _kinds(schema: dict[str, Any], document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The kinds of objects that a body may be."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    if "properties" in schema:
        yield schema
    for kind in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        yield from _kinds(kind, document)


def _spoilt(example: dict[str, Any], fields: Iterable[str]) -> Iterator[dict[str, Any]]:
    yield {**example, "unknown": 1}
    for field in fields:
        rest = {name: value for name, value in example.items() if name != field}
        yield rest
        yield from ({**rest, field: bad} for bad in VALUES)


async def refusals(every: int = 1) -> Refusals:
    """What the app says to each of them, or to one in so many."""
    engine: Any = FakeEngine(tokenizer=ChatTokenizer())
    app = create_app(Settings(), engine)
    told: Refusals = {}
    async with client_of(app) as client:
        for path, body in islice(bad_requests(app.openapi()), 0, None, every):
            told[f"{path} {body[:300]!r}"] = await _refusal(client, path, body)
    return told


async def _refusal(client: httpx.AsyncClient, path: str, body: bytes) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    response = await client.post(path, content=body, headers=headers)
    return response.status_code, response.json() if response.status_code >= 400 else None


def asserts() -> bool:
    """Whether assertions are carried out here."""
    try:
        assert VALUES is None
    except AssertionError:
        return True
    return False


if __name__ == "__main__":
    json.dump([asserts(), asyncio.run(refusals(*map(int, sys.argv[1:])))], sys.stdout)
