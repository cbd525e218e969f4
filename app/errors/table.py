"""The one table: what was raised -> a status and an OpenAI error object.

Beside the runtime's own tree (``model_runtime.errors``) the HTTP shell raises:

RequestRefused              refused before the engine hears of it
├── Unauthorized            401
├── ModelNotServed          404
├── RequestTimeout          408   headers or body do not come
├── BodyTooLarge            413
├── UnsupportedMediaType    415
│   └── UnsupportedEncoding 415   compressed in a way that is not read
├── MalformedHttp           400   not HTTP, or HTTP that two readers may read differently
├── MalformedEncoding       400   not what its Content-Encoding says
├── MalformedBody           400   not JSON at all
├── AmbiguousBody           422   JSON that two readers may read differently
├── TooManyBodyBytes        429   other bodies take all the room
└── TooManyConnections      503

A 4xx says what the exception says: it is about what the caller sent. A 5xx says only what the
table says: the exception's own words may hold paths or internals, and go to the log.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, ClassVar, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.errors.shapes import error_body
from app.errors.validation import field_error
from app.schemas.error import ErrorObject, ErrorResponse
from app.telemetry.request_facts import facts_of
from model_runtime import (
    ChainruleError,
    DeadlineExceeded,
    EngineDied,
    EngineNotReady,
    EngineOverloaded,
    EngineStalled,
    EngineStopping,
    EngineUnavailable,
    ForwardFailed,
    InvalidQuery,
    MissingExtra,
    NonFiniteLogits,
    NothingFollows,
    OutOfMemory,
    PathTooLong,
    RequestTooLarge,
    TokenIdOutOfRange,
)

logger = logging.getLogger(__name__)

NOT_READY_RETRY_S: Final = 5
"""What a caller is told to wait while the model loads; nobody knows how long that takes."""

_CLOSE: Final = {"Connection": "close"}


class RequestRefused(Exception):
    """The request cannot be passed on. ``param`` names the field at fault, if it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Unauthorized(RequestRefused):
    """No API key, or not one of ours."""


class ModelNotServed(RequestRefused):
    """The request names a model other than the one served."""


class CalibrationNotFound(RequestRefused):
    """The request names a calibration that is not here."""


class CalibrationMismatch(RequestRefused):
    """The calibration is of another model, of other prompts or of another ``debias``."""


class CalibrationExists(RequestRefused):
    """A calibration of this name is here already."""


class TooManyCalibrations(RequestRefused):
    """There is no room for another calibration."""


class CalibrationNotStored(RequestRefused):
    """The folder of the calibrations cannot be written."""


class CalibrationReadOnly(RequestRefused):
    """The calibration is the operator's, for all keys; none of them may change it."""


class KeyNeeded(RequestRefused):
    """The request would change what the server keeps, which takes an API key, and it has none."""


class BodyTooLarge(RequestRefused):
    """The body is longer than ``max_body_bytes``, as it comes or decompressed."""


class TooManyBodyBytes(RequestRefused):
    """The bodies in flight take all of ``max_body_bytes_in_flight``."""

    headers: ClassVar = {"Retry-After": "1"}


class TooManyConnections(RequestRefused):
    """There are ``max_connections`` already."""

    headers: ClassVar = {"Retry-After": "1", **_CLOSE}


class RequestTimeout(RequestRefused):
    """The headers or the body did not come in time. What is left of them cannot be told apart
    from the next request, so the connection ends."""

    headers: ClassVar = _CLOSE


class MalformedHttp(RequestRefused):
    """Where the request ends, or whom it is for, is not clear. Nothing behind it can be trusted."""

    headers: ClassVar = _CLOSE


class UnsupportedMediaType(RequestRefused):
    """The body is not JSON in UTF-8."""


class UnsupportedEncoding(UnsupportedMediaType):
    """The body is compressed in a way that is not read; the answer says which ways are."""

    headers: ClassVar = {"Accept-Encoding": "gzip, zstd"}


class MalformedEncoding(RequestRefused):
    """The body is not what its ``Content-Encoding`` says, or not all of it."""


class MalformedBody(RequestRefused):
    """The body is not JSON, or is nested too deep to be read."""


class AmbiguousBody(RequestRefused):
    """A key stands twice, or a number is NaN or infinite."""


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """One line of the table.

    Attributes:
        status: of the response.
        type: of the error object.
        code: of the error object.
        message: what the caller reads instead of the exception's own words; every 5xx has one.
    """

    status: int
    type: str
    code: str
    message: str | None = None


_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"
_UNAVAILABLE: Final = "service_unavailable_error"

INTERNAL: Final = ErrorSpec(500, _SERVER, "internal_error", "The server failed at this request.")

ERROR_SPECS: Final[dict[type[Exception], ErrorSpec]] = {
    InvalidQuery: ErrorSpec(422, _INVALID, "invalid_value"),
    NothingFollows: ErrorSpec(422, _INVALID, "no_completion"),
    TokenIdOutOfRange: ErrorSpec(422, _INVALID, "token_id_out_of_range"),
    PathTooLong: ErrorSpec(422, _INVALID, "context_length_exceeded"),
    RequestTooLarge: ErrorSpec(422, _INVALID, "request_too_large"),
    # The caller asks for nothing wrong; the operator has set the server up without it.
    MissingExtra: ErrorSpec(
        501,
        _SERVER,
        "grammar_not_installed",
        "This server is set up without regex and json_schema; they need the grammar extra.",
    ),
    EngineOverloaded: ErrorSpec(429, "rate_limit_error", "queue_full"),
    DeadlineExceeded: ErrorSpec(
        504, "timeout_error", "deadline_exceeded", "The request's time ran out."
    ),
    EngineUnavailable: ErrorSpec(503, _UNAVAILABLE, "unavailable", "No requests are taken now."),
    EngineNotReady: ErrorSpec(503, _UNAVAILABLE, "not_ready", "The model is still being loaded."),
    EngineStopping: ErrorSpec(503, _UNAVAILABLE, "stopping", "The server is shutting down."),
    EngineDied: ErrorSpec(503, _UNAVAILABLE, "engine_died", "The engine has stopped working."),
    EngineStalled: ErrorSpec(503, _UNAVAILABLE, "engine_died", "The engine has stopped working."),
    ForwardFailed: ErrorSpec(500, _SERVER, "forward_failed", "The model failed at this input."),
    OutOfMemory: ErrorSpec(
        503, _SERVER, "out_of_memory", "This request does not fit into memory now."
    ),
    NonFiniteLogits: ErrorSpec(
        500, _SERVER, "non_finite_logits", "The model gave this input no usable probabilities."
    ),
    Unauthorized: ErrorSpec(401, "authentication_error", "invalid_api_key"),
    ModelNotServed: ErrorSpec(404, _INVALID, "model_not_found"),
    CalibrationNotFound: ErrorSpec(404, _INVALID, "calibration_not_found"),
    CalibrationMismatch: ErrorSpec(409, _INVALID, "calibration_mismatch"),
    CalibrationExists: ErrorSpec(409, _INVALID, "calibration_exists"),
    TooManyCalibrations: ErrorSpec(409, _INVALID, "too_many_calibrations"),
    CalibrationNotStored: ErrorSpec(
        503, _UNAVAILABLE, "calibration_not_stored", "The calibration could not be written."
    ),
    CalibrationReadOnly: ErrorSpec(403, "permission_error", "calibration_read_only"),
    KeyNeeded: ErrorSpec(403, "permission_error", "api_key_needed"),
    RequestTimeout: ErrorSpec(408, "timeout_error", "request_timeout"),
    BodyTooLarge: ErrorSpec(413, _INVALID, "body_too_large"),
    UnsupportedMediaType: ErrorSpec(415, _INVALID, "unsupported_media_type"),
    MalformedHttp: ErrorSpec(400, _INVALID, "malformed_http"),
    MalformedEncoding: ErrorSpec(400, _INVALID, "malformed_encoding"),
    MalformedBody: ErrorSpec(400, _INVALID, "malformed_json"),
    AmbiguousBody: ErrorSpec(422, _INVALID, "ambiguous_json"),
    TooManyBodyBytes: ErrorSpec(429, "rate_limit_error", "too_many_body_bytes"),
    TooManyConnections: ErrorSpec(
        503, _UNAVAILABLE, "too_many_connections", "The server has no room for more connections."
    ),
}

_HTTP_ROWS: Final[dict[int, ErrorSpec]] = {
    404: ErrorSpec(404, _INVALID, "not_found", "There is nothing at this path; see /docs."),
    405: ErrorSpec(405, _INVALID, "method_not_allowed", "This path does not take this method."),
}


def error_row(exc: Exception) -> ErrorSpec:
    """The line of the table that covers ``exc``, by its nearest listed class."""
    if isinstance(exc, HTTPException):
        return _http_row(exc)
    return next((ERROR_SPECS[kind] for kind in type(exc).__mro__ if kind in ERROR_SPECS), INTERNAL)


def error_object(exc: Exception) -> ErrorObject:
    """``exc`` as the error object of a failed request, or of a failed item within one."""
    if isinstance(exc, RequestValidationError):
        found = field_error(exc)
        return _object(found.message, _INVALID, found.param, found.code)
    row = error_row(exc)
    return _object(row.message or str(exc), row.type, getattr(exc, "param", None), row.code)


def error_response(exc: Exception, path: str) -> Response:
    """``exc`` as a whole response to ``path``: status, headers, and the shape spoken there."""
    status = 422 if isinstance(exc, RequestValidationError) else error_row(exc).status
    error = error_object(exc)
    status, body = error_body(path, status, error)
    return _ErrorResponse(body, status, error_headers(exc), code=error.code)


class _ErrorResponse(Response):
    """Tells the access log and the metrics the error's code, too."""

    media_type = "application/json"

    def __init__(
        self, body: str, status: int, headers: dict[str, str], *, code: str | None
    ) -> None:
        super().__init__(body, status, headers)
        self._code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._code is not None:
            facts_of(scope)["error"] = self._code
        await super().__call__(scope, receive, send)


def error_headers(exc: Exception) -> dict[str, str]:
    """The headers that tell a client what to do next."""
    if isinstance(exc, EngineOverloaded | OutOfMemory) and exc.retry_after_s is not None:
        return {"Retry-After": str(max(1, math.ceil(exc.retry_after_s)))}
    if isinstance(exc, EngineNotReady):
        return {"Retry-After": str(NOT_READY_RETRY_S)}
    if isinstance(exc, DeadlineExceeded):
        # OpenAI's client would try twice more, each time for as long.
        return {"X-Should-Retry": "false"}
    if isinstance(exc, EngineStopping):
        return _CLOSE
    if isinstance(exc, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    return dict(getattr(exc, "headers", None) or {})


def install_error_handlers(app: FastAPI) -> None:
    """Answer everything expected from the table; the unexpected is left to the outermost layer."""
    for kind in (ChainruleError, RequestRefused, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _handle)


# As a reference: of a model FastAPI would make a validator for each route and status, at the first
# request, which takes 25 ms of the event loop.
_SCHEMA: Final = {"schema": {"$ref": f"#/components/schemas/{ErrorResponse.__name__}"}}

ERROR_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": HTTPStatus(status).phrase, "content": {"application/json": _SCHEMA}}
    for status in (400, 401, 408, 413, 415, 422, 429, 500, 503, 504)
}
"""What every scoring route may answer beside its own 200, for the OpenAPI document."""


async def _handle(request: Request, exc: Exception) -> Response:
    response = error_response(exc, request.scope["path"])
    if response.status_code >= 500:
        logger.warning("request failed", extra={"error": f"{type(exc).__name__}: {exc}"})
    return response


def _object(message: str, kind: str, param: str | None, code: str) -> ErrorObject:
    return ErrorObject(message=_clean(message), type=kind, param=param and _clean(param), code=code)


def _clean(text: str) -> str:
    # JSON may spell half a surrogate pair, as a key too; UTF-8 cannot.
    return text.encode("utf-8", "backslashreplace").decode()


def _http_row(exc: HTTPException) -> ErrorSpec:
    known = _HTTP_ROWS.get(exc.status_code)
    if known is not None:
        # Without words of its own it has those of HTTP.
        has_words = exc.detail != HTTPStatus(exc.status_code).phrase
        return replace(known, message=exc.detail) if has_words else known
    if exc.status_code >= 500:
        return ErrorSpec(exc.status_code, _SERVER, INTERNAL.code, INTERNAL.message)
    return ErrorSpec(exc.status_code, _INVALID, "bad_request", str(exc.detail))
