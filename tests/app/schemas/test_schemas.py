"""The wire types: what the OpenAPI document says is what the server does."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from app.errors.shapes import SHAPES
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import (
    CertificateReport,
    ComparedStrategy,
    DecodedSequence,
    DecodedToken,
    DecodeResponse,
)
from app.schemas.models import ModelCard
from app.schemas.next_token import NextTokenRequest, NextTokenResponse
from app.schemas.request import ContextRequest
from app.schemas.response import ResponseModel
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse
from tests.app.fake_engine import FakeEngine

REQUESTS: list[type[ContextRequest]] = [ScoreRequest, NextTokenRequest, DecodeRequest]
RESPONSES: list[type[ResponseModel]] = [ScoreResponse, NextTokenResponse, DecodeResponse, ModelCard]
PARTS: list[type[ResponseModel]] = [DecodedSequence, CertificateReport, ComparedStrategy]
SMALLEST = {"context": "a", "candidates": ["b"]}


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


def smallest(model: type[ContextRequest]) -> dict[str, Any]:
    """The required fields alone."""
    fields = model.model_fields
    return {k: v for k, v in SMALLEST.items() if k in fields and fields[k].is_required()}


@pytest.mark.parametrize("model", REQUESTS)
def test_examples_of_requests_are_valid(model: type[ContextRequest]) -> None:
    """Every example of a request is one."""
    examples = model.model_json_schema()["examples"]
    assert examples
    for example in examples:
        model.model_validate(example)


@pytest.mark.parametrize("model", RESPONSES)
def test_examples_of_responses_are_valid(model: type[ResponseModel]) -> None:
    """Every example of a response has all fields of one, and no others."""
    (example,) = model.model_json_schema(mode="serialization")["examples"]
    assert model.model_validate(example).model_dump() == example


@pytest.mark.parametrize("model", REQUESTS)
def test_null_means_the_default(model: type[ContextRequest]) -> None:
    """Null for any optional field is as if it were absent, and the document says so."""
    properties = model.model_json_schema()["properties"]
    body = smallest(model)
    for name, field in model.model_fields.items():
        if field.is_required():
            continue
        assert {"type": "null"} in properties[name]["anyOf"], name
        assert model.model_validate({**body, name: None}) == model.model_validate(body), name


@pytest.mark.parametrize("model", REQUESTS)
def test_null_is_refused_where_a_value_is_required(model: type[ContextRequest]) -> None:
    """Null never stands for a required field."""
    for name in smallest(model):
        with pytest.raises(ValidationError):
            model.model_validate({**smallest(model), name: None})


@pytest.mark.parametrize("model", [*REQUESTS, *RESPONSES, *PARTS])
def test_every_field_is_documented(model: type[BaseModel]) -> None:
    """A field has a description, or a name that is one."""
    plain = {"id", "object", "model", "created", "owned_by", "usage", "timings_ms", "limits"}
    plain |= {"architecture", "dtype", "device", "bos_token_id", "end_token_ids", "results"}
    plain |= {"boundary", "sequences"}
    for name, field in model.model_fields.items():
        assert field.description or (issubclass(model, ResponseModel) and name in plain), name


@pytest.mark.anyio
async def test_the_document_has_examples_of_both_sides(client: httpx.AsyncClient) -> None:
    """/openapi.json shows a request and a response of every route, and the one error shape."""
    document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for verb, name in (("score", "Score"), ("next_token", "NextToken"), ("decode", "Decode")):
        assert f"/v1/{verb}" in document["paths"]
        assert schemas[f"{name}Request"]["examples"]
        assert schemas[f"{name}Response"]["examples"]
    spoken = (path for path in document["paths"] if path.startswith("/v1/"))
    native = [path for path in spoken if path not in SHAPES]
    for operation in (route for path in native for route in document["paths"][path].values()):
        for status, response in operation["responses"].items():
            schema = response["content"]["application/json"]["schema"]
            shapes = [one["$ref"] for one in schema.get("anyOf", [schema])]
            failed = shapes == ["#/components/schemas/ErrorResponse"]
            assert failed == (int(status) >= 400) == any("Error" in shape for shape in shapes)


@pytest.mark.anyio
async def test_the_document_shows_a_stream(client: httpx.AsyncClient) -> None:
    """Beside its JSON the decode route documents its events, and the example is a whole stream."""
    document = (await client.get("/openapi.json")).json()
    answers = document["paths"]["/v1/decode"]["post"]["responses"]
    lines = answers["200"]["content"]["text/event-stream"]["example"].splitlines()
    names = [line for line in lines if line.startswith("event: ")]
    token, result = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert names == ["event: token", "event: result"]
    assert token.keys() == {field.name for field in fields(DecodedToken)} - {"top_logprobs"}
    assert DecodeResponse.model_validate(result)
    assert "501" in answers
