"""Numbers in requests: out of range, or none at all, in every field of every route."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app.compat.decisions.decision_calls import chat_engine
from tests.app.conftest import client_of, shell_app
from tests.app.schemas.request_fields import BODIES, RequestField, fields_of, is_allowed

pytestmark = pytest.mark.anyio

VALUES = (2**31, 2**63, -1, 0, True, "1", 1e308, 0.5, None)

WITHOUT_NUMBERS = {"TokenizeRequest"}


def numbers_of(name: str) -> list[RequestField]:
    """The fields that take a number, be it one of a few only."""
    kinds = ("integer", "number")
    return [
        field
        for field in fields_of(name)
        if field.schema.get("type") in kinds or any(map(_is_number, field.schema.get("enum", ())))
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def usual(field: RequestField) -> Any:
    """A value that is taken."""
    schema = field.schema
    if field.path == "timeout_ms":
        return schema["maximum"]
    if "enum" in schema:
        return next(iter(schema["enum"]), None)
    return min(max(1, schema.get("minimum", 1)), schema.get("maximum", 1))


def told(response: httpx.Response) -> str:
    """What a refusal says, in any of the shapes."""
    body = response.json()
    error = body.get("error", body)
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize(("path", "name"), [one for one in BODIES if one[1] not in WITHOUT_NUMBERS])
async def test_every_number_is_taken_or_refused_by_name(path: str, name: str) -> None:
    """422 that names the field where the document does not allow the value; else no failure of
    ours, and 200 for a usual one, so that nothing but the value is refused."""
    wrong = []
    fields = numbers_of(name)
    assert fields
    async with client_of(shell_app(chat_engine())) as client:
        for field in fields:
            taken = await client.post(path, json=field.body(usual(field)))
            if taken.status_code != 200:
                wrong.append((field.path, usual(field), taken.text))
            for value in VALUES:
                body = field.body(value)
                response = await client.post(path, json=body)
                if is_allowed(name, body):
                    right = response.status_code < 500
                else:
                    start = f"{field.path}: "
                    right = response.status_code == 422 and told(response).startswith(start)
                if not right:
                    wrong.append((field.path, value, response.text))
    assert not wrong
