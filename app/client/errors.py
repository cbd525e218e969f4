"""What a call of the client may raise.

ClientError
├── InvalidRequest        a field does not fit; nothing was sent
├── ConnectionFailed      no connection, or it was cut, or the time ran out
├── InvalidResponse       an answer, but not the server's own
├── FingerprintMismatch   parts of one list were answered by different models
└── ApiError              the server's own error object
    ├── RequestRefused    4xx: the request is at fault
    │   ├── Unauthorized  401, 403
    │   └── Overloaded    429, after the last retry
    └── RequestFailed     5xx
        ├── Unavailable        503, after the last retry
        └── DeadlineExceeded   504: the request's own deadline
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors.validation import first_field_error


class ClientError(Exception):
    """Base of all of them.

    Attributes:
        message: for people.
        param: the field at fault, with dots and indices; None where it is none.
        code: for programs; None where there is none.
        request_id: what the request is called in the server's log; None where nothing was sent.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.request_id = request_id


class InvalidRequest(ClientError):
    """A field does not fit the schema; nothing was sent."""

    @classmethod
    def of(
        cls, error: ValidationError, body: object, schema: dict[str, Any] | None = None
    ) -> InvalidRequest:
        """The first thing that is wrong with ``body``, of this JSON schema, as the server would say
        it."""
        items = error.errors(include_url=False, include_context=False, include_input=False)
        located = ({**one, "loc": ("body", *one["loc"])} for one in items)
        found = first_field_error(located, body, schema)
        return cls(found.message, param=found.param, code=found.code)


class ConnectionFailed(ClientError):
    """There was no connection, or it was cut, or the time ran out.

    Attributes:
        is_retryable: another attempt may succeed.
    """

    def __init__(self, message: str, *, is_retryable: bool = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.is_retryable = is_retryable


class InvalidResponse(ClientError):
    """What came back is not what this server would have sent."""


class FingerprintMismatch(ClientError):
    """Parts of one list were answered by models of different fingerprints."""


class ApiError(ClientError):
    """The server's own error object.

    Attributes:
        status: of the response; of an error within a stream or an answer, None.
        type: the kind of error, such as ``invalid_request_error``.
        retry_after_s: seconds that the server asks to wait; None where it asks nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        retry_after_s: float | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(message, **rest)
        self.status = status
        self.type = type
        self.retry_after_s = retry_after_s


class RequestRefused(ApiError):
    """4xx: the request is at fault."""


class Unauthorized(RequestRefused):
    """401 or 403: the API key is missing or wrong."""


class Overloaded(RequestRefused):
    """429: the queue was full, at the last attempt too."""


class RequestFailed(ApiError):
    """5xx: the server failed at this request."""


class Unavailable(RequestFailed):
    """503: the server takes no requests, at the last attempt neither."""


class DeadlineExceeded(RequestFailed):
    """504: the request's own time ran out."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Unauthorized,
    429: Overloaded,
    503: Unavailable,
    504: DeadlineExceeded,
}

_SHOWN_CHARS = 200
"""Of a body that nobody can read."""


class _Object(BaseModel):
    model_config = ConfigDict(extra="ignore")

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")

    error: _Object


def api_error(
    status: int | None, body: bytes, request_id: str | None, retry_after_s: float | None = None
) -> ApiError:
    """The error of a response; of one without an error object, its status and first words."""
    try:
        found = _Body.model_validate_json(body).error
    except ValidationError:
        words = body[:_SHOWN_CHARS].decode(errors="replace").strip()
        found = _Object(message=f"status {status}: {words}")
    return _kind(_STATUS_IN_STREAM.get(found.code or "") if status is None else status)(
        **found.model_dump(), status=status, request_id=request_id, retry_after_s=retry_after_s
    )


_STATUS_IN_STREAM: Final = {
    "deadline_exceeded": 504,
    "engine_died": 503,
    "out_of_memory": 503,
    "stopping": 503,
}
"""By code: the status that an error would have had before the stream began."""


def _kind(status: int | None) -> type[ApiError]:
    if status is None:
        return ApiError
    return _BY_STATUS.get(status, RequestRefused if status < 500 else RequestFailed)
