"""Every example of the OpenAPI document, as the page about the routes sends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.real_model, pytest.mark.process]

Schema = dict[str, Any]


def examples(document: Schema, schema: Schema) -> Iterator[Any]:
    """Those of a body's schema and of what it may be."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    yield from schema.get("examples", ())
    for one in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        yield from examples(document, one)


def test_every_example_is_answered(real_server: LiveServer) -> None:
    """Whatever takes a body has at least one example, and each of them succeeds."""
    document = real_server.client.get("/openapi.json").json()
    asked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            bodies = list(examples(document, schema))
            assert bodies, path
            for body in bodies:
                response = real_server.client.request(method, path, json=body)
                assert response.status_code == 200, (path, body, response.text)
                asked += 1
    assert asked > 30
