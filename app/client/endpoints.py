"""Each verb of the native API as a ``Call``: what is sent, and how its answer is read.

A request is checked against its schema before it is sent. An answer is read leniently: a newer
server may add fields, which are left out here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from app.client.call import Call
from app.client.display.answers import AuditAnswer, DecodeAnswer, NextTokenAnswer, ScoreAnswer
from app.client.errors import InvalidRequest
from app.client.session import session_id
from app.schemas.audit import AuditRequest
from app.schemas.calibration import FittedCalibration
from app.schemas.decode import DecodeRequest
from app.schemas.models import ModelCard, ModelList
from app.schemas.next_token import NextTokenRequest
from app.schemas.request import Request
from app.schemas.score import ScoreRequest

T = TypeVar("T")
R = TypeVar("R", bound=Request)
M = TypeVar("M", bound=BaseModel)

Given = Mapping[str, Any]
ScoreGiven = ScoreRequest | Given
NextTokenGiven = NextTokenRequest | Given
DecodeGiven = DecodeRequest | Given
AuditGiven = AuditRequest | Given
"""A request as callers give it: whole, or as a mapping of its fields."""

_HEALTH: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def score_call(
    request: ScoreRequest, request_id: str | None = None, session: str | None = None
) -> Call[ScoreAnswer]:
    """POST /v1/score."""
    read = partial(ScoreAnswer.read, request=request)
    return _post("/v1/score", request, read, request_id, session)


def next_token_call(
    request: NextTokenRequest, request_id: str | None = None, session: str | None = None
) -> Call[NextTokenAnswer]:
    """POST /v1/next_token."""
    return _post("/v1/next_token", request, _reader(NextTokenAnswer), request_id, session)


def decode_call(
    request: DecodeRequest, request_id: str | None = None, session: str | None = None
) -> Call[DecodeAnswer]:
    """POST /v1/decode, for the whole answer at once or, with ``stream``, for its events."""
    return _post("/v1/decode", request, _reader(DecodeAnswer), request_id, session)


def audit_call(
    request: AuditRequest, request_id: str | None = None, session: str | None = None
) -> Call[AuditAnswer]:
    """POST /v1/audit."""
    return _post("/v1/audit", request, _reader(AuditAnswer), request_id, session)


def calibrate_call(request: Given, request_id: str | None = None) -> Call[FittedCalibration]:
    """POST /v1/calibrations. What the request may hold is the server's affair."""
    try:
        body = json.dumps(request, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None
    return Call("POST", "/v1/calibrations", body, _reader(FittedCalibration), _named(request_id))


def models_call(request_id: str | None = None) -> Call[list[ModelCard]]:
    """GET /v1/models."""
    return _get("/v1/models", lambda body: _reader(ModelList)(body).data, request_id)


def health_call(request_id: str | None = None) -> Call[dict[str, Any]]:
    """GET /health, whose 503 is an answer as well."""
    call = _get("/health", _HEALTH.validate_json, request_id)
    return Call(call.method, call.path, None, call.read, call.request_id, frozenset({503}))


def build_request(
    schema: type[R], given: R | Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> R:
    """The request, given whole, as a mapping, or as fields that come on top of it.

    Raises:
        InvalidRequest: a field does not fit.
    """
    if isinstance(given, schema) and not fields:
        return given
    if not isinstance(given, Request | Mapping | None):
        raise InvalidRequest(f"a request is a mapping of fields or a {schema.__name__}")
    stated = (
        given.model_dump(exclude_unset=True, serialize_as_any=True)
        if isinstance(given, Request)
        else given or {}
    )
    body = {**stated, **fields}
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        raise InvalidRequest.of(error, body, schema.model_json_schema()) from None


def _post(
    path: str,
    request: Request,
    read: Callable[[bytes], T],
    request_id: str | None,
    session: str | None,
) -> Call[T]:
    try:
        body = request.model_dump_json(exclude_unset=True, serialize_as_any=True).encode()
        sent = session_id(session, request)
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        # Half a surrogate pair is a string in Python and no text anywhere else.
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None
    return Call("POST", path, body, read, _named(request_id), session_id=sent)


def _get(path: str, read: Callable[[bytes], T], request_id: str | None) -> Call[T]:
    return Call("GET", path, None, read, _named(request_id))


def _named(request_id: str | None) -> str:
    if request_id and not (request_id.isascii() and request_id.isprintable()):
        raise InvalidRequest("request_id: it cannot be sent in a header", param="request_id")
    return request_id or uuid4().hex


def _reader(answer: type[M]) -> Callable[[bytes], M]:
    return partial(answer.model_validate_json, extra="ignore")
