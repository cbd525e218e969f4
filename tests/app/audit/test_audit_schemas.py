"""The wire types of /v1/audit: examples, defaults and descriptions are what the server does."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from app.schemas import audit_response as audit_reply
from app.schemas import diagnosis as diagnosis_reply
from app.schemas.audit import AuditRequest
from app.schemas.audit_response import AuditResponse
from app.schemas.reported import Reported
from app.schemas.response import ResponseModel
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

PARTS = [
    part
    for module in (audit_reply, diagnosis_reply)
    for part in vars(module).values()
    if isinstance(part, type)
    and issubclass(part, ResponseModel)
    and part.__module__ == module.__name__
]


def test_examples_are_valid() -> None:
    """Every example of the request is one, and the answer's has no other fields than it has."""
    examples = AuditRequest.model_json_schema()["examples"]
    assert len(examples) == 3
    for example in examples:
        AuditRequest.model_validate(example)
    (answer,) = AuditResponse.model_json_schema(mode="serialization")["examples"]
    dumped = AuditResponse.model_validate(answer).model_dump(exclude_none=True)
    assert dumped == {name: value for name, value in answer.items() if value is not None}


def test_null_means_the_default() -> None:
    """Null for any optional field is as if it were absent, and the document says so."""
    body = {"context": "a", "candidates": ["b"]}
    properties = AuditRequest.model_json_schema()["properties"]
    for name, field in AuditRequest.model_fields.items():
        if not field.is_required():
            assert {"type": "null"} in properties[name]["anyOf"], name
            same = AuditRequest.model_validate({**body, name: None})
            assert same == AuditRequest.model_validate(body), name


@pytest.mark.parametrize("model", [AuditRequest, Reported, *PARTS])
def test_every_field_is_documented(model: type[BaseModel]) -> None:
    """A field has a description, or a name that is one."""
    plain = {"id", "text", "object", "created", "model", "usage", "timings_ms", "boundary"}
    for name, field in model.model_fields.items():
        assert field.description or name in plain, name


@pytest.mark.anyio
async def test_the_document_has_the_route() -> None:
    """/openapi.json shows the request, the answer and the one error shape."""
    async with client_of(shell_app(FakeEngine())) as client:
        document = (await client.get("/openapi.json")).json()
    answers = document["paths"]["/v1/audit"]["post"]["responses"]
    for status, response in answers.items():
        shape = response["content"]["application/json"]["schema"]["$ref"]
        want = "AuditResponse" if status == "200" else "ErrorResponse"
        assert shape == f"#/components/schemas/{want}"
    assert document["components"]["schemas"]["AuditRequest"]["examples"]
