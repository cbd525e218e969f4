"""A route whose body is JSON, read so that no two readers could understand it differently."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from email.message import Message
from functools import cache
from typing import Annotated, Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers

from app.errors.table import (
    AmbiguousBody,
    MalformedBody,
    UnsupportedEncoding,
    UnsupportedMediaType,
)
from app.http.strict_json import AmbiguousJson, MalformedJson, parse_json
from app.requests.bounded_threads import BoundedThreads

LARGE_BODY = 65_536
"""Bytes from which on a body is parsed and validated off the event loop."""

PARSING_THREADS: Final = 2
"""Large bodies that are parsed at once. 8 MiB of JSON take up to 170 MiB meanwhile: small numbers
and short texts are some 20 times as large in Python."""


class JsonRoute(APIRoute):
    """Use as ``APIRouter(route_class=JsonRoute)`` wherever a route takes a body.

    The body must be declared as ``application/json`` in UTF-8 (else 415). ``BodyLimit`` has
    decompressed it where it came compressed.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, given a request that reads its body strictly."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        field = self.body_field.field_info
        declared: Any = Annotated[field.annotation, field]
        body: TypeAdapter[Any] = TypeAdapter(declared)
        schema = cache(body.json_schema)

        async def handle_json(request: Request) -> Response:
            strict, state = _JsonRequest(request.scope, request.receive), request.app.state
            sent = await strict.body_bytes()
            large = len(sent) > LARGE_BODY
            with state.full_collections.deferred() if large else nullcontext():
                try:
                    await strict.read(sent, body, state.parser)
                    return await handle(strict)
                except RequestValidationError as error:
                    if not any(one["type"] == "extra_forbidden" for one in error.errors()):
                        raise
                    raise UnknownField(error, schema()) from error

        return handle_json


class UnknownField(RequestValidationError):
    """A body with a field that there is not.

    Args:
        error: what was found wrong.
        schema: of the body, which tells the fields that there are.
    """

    def __init__(self, error: RequestValidationError, schema: dict[str, Any]) -> None:
        super().__init__(error.errors(), body=error.body)
        self.body_schema = schema


class QueuedRoute(JsonRoute):
    """A JsonRoute whose requests need a place in the engine's queue; see ``LoadShedding``."""


class Parser:
    """Parses and validates large bodies on ``PARSING_THREADS`` threads of its own."""

    def __init__(self) -> None:
        self._threads = BoundedThreads(PARSING_THREADS, "parse")

    async def read(self, body: bytes, kind: TypeAdapter[Any]) -> Any:
        """The body as the route declares it.

        Raises:
            MalformedBody, AmbiguousBody: it is not JSON, or not one value only.
            RequestValidationError: it is JSON of another kind.
        """
        return await self._threads.run(_read_large, body, kind)


class _JsonRequest(Request):
    """A request that hands out the value read by ``read``."""

    async def body_bytes(self) -> bytes:
        """The body. Raises ``UnsupportedMediaType`` where it is not declared as JSON."""
        _require_json(self.headers)
        # Before FastAPI reads: it would answer any failure here with its own 400.
        return await self.body()

    async def read(self, body: bytes, kind: TypeAdapter[Any], parser: Parser) -> None:
        if len(body) > LARGE_BODY:
            self._json = await parser.read(body, kind)
        elif body:
            self._json = _parse(body)


def _parse(body: bytes) -> Any:
    try:
        return parse_json(body)
    except MalformedJson as error:
        raise MalformedBody(str(error)) from None
    except AmbiguousJson as error:
        raise AmbiguousBody(str(error), error.key) from None


def _read_large(body: bytes, kind: TypeAdapter[Any]) -> Any:
    """The body as the route declares it: models, which FastAPI takes as they are.

    Raises:
        RequestValidationError: it is none; FastAPI would complain of the same, on the event loop.
    """
    value = _parse(body)
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        complaints = error.errors(include_url=False)
        located = [{**one, "loc": ("body", *one["loc"])} for one in complaints]
        raise RequestValidationError(located, body=value) from error


def _require_json(headers: Headers) -> None:
    if any(one.strip().lower() != "identity" for one in headers.getlist("content-encoding")):
        raise UnsupportedEncoding(
            "This Content-Encoding is not read; send the body as it is, or as gzip or zstd alone."
        )
    declared = headers.get("content-type")
    if declared is None and not _has_body(headers):
        return
    media = Message()
    media["content-type"] = declared or "application/octet-stream"
    charset = media.get_content_charset("utf-8")
    if media.get_content_type() == "multipart/form-data":
        raise UnsupportedMediaType(
            "Images and other files are not read; send the body as Content-Type: application/json."
        )
    if media.get_content_type() != "application/json" or charset not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("Send the request body as Content-Type: application/json.")


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
