"""A route whose body is JSON, read so that no two readers could understand it differently."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from email.message import Message
from functools import partial
from typing import Annotated, Any, Final, NoReturn

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers

from app.errors.table import AmbiguousBody, MalformedBody, UnsupportedMediaType
from app.requests.worker_threads import on_loop

LARGE_BODY = 65_536
"""Bytes from which on a body is parsed and validated off the event loop."""

PARSING_THREADS: Final = 2
"""Large bodies that are parsed at once. 8 MiB of JSON take up to 170 MiB meanwhile: small numbers
and short texts are some 20 times as large in Python."""

MAX_CONTAINERS: Final = 262_144
"""Lists and objects in one body: twice as many as candidates. They are 25 to 35 times as large in
Python: without this bound 8 MiB of ``[],[],`` took 200 MiB and of ``[[]],[[]],`` 280, and more than
a second in which no other thread ran."""

_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)

MAX_KEYS = 1_024
"""Of one object: room for data that a field takes as it is. Where the schema has its own keys, each
unknown one costs a complaint, of which the first is told; lists stop at their first bad entry."""


class JsonRoute(APIRoute):
    """Use as ``APIRouter(route_class=JsonRoute)`` wherever a route takes a body.

    The body must be declared as uncompressed ``application/json`` in UTF-8 (else 415). Python's
    reader alone would take the last of two equal keys, and NaN and Infinity for numbers.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, given a request that reads its body strictly."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        field = self.body_field.field_info
        declared: Any = Annotated[field.annotation, field]
        body: TypeAdapter[Any] = TypeAdapter(declared)

        async def handle_json(request: Request) -> Response:
            strict, state = _JsonRequest(request.scope, request.receive), request.app.state
            sent = await strict.body_bytes()
            large = len(sent) > LARGE_BODY
            with state.full_collections.deferred() if large else nullcontext():
                await strict.read(sent, body, state.parser)
                return await handle(strict)

        return handle_json


class QueuedRoute(JsonRoute):
    """A JsonRoute whose requests need a place in the engine's queue; see ``LoadShedding``."""


class Parser:
    """Parses and validates large bodies on ``PARSING_THREADS`` threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(PARSING_THREADS, "parse")
        self._free = asyncio.Semaphore(PARSING_THREADS)

    async def read(self, body: bytes, kind: TypeAdapter[Any]) -> Any:
        """The body as the route declares it.

        A caller that is cancelled while it waits for its turn takes its body away with it. Where
        the thread has begun, the turn ends with the thread.

        Raises:
            MalformedBody, AmbiguousBody: as ``parse_json``.
            RequestValidationError: it is JSON of another kind.
        """
        await self._free.acquire()
        running = self._threads.submit(_read_large, body, kind)
        result = asyncio.wrap_future(running)
        running.add_done_callback(partial(on_loop, result.get_loop(), self._free.release))
        return await result


def parse_json(body: bytes) -> Any:
    """The value that ``body`` spells.

    Raises:
        MalformedBody: it is not JSON in UTF-8, or nested too deep.
        AmbiguousBody: an object has a key twice, a number is not finite, a string holds half a
            surrogate pair, which no text in UTF-8 can, or the lists and objects are too many.
    """
    _check_containers(body)
    try:
        text = body.decode("utf-8")
        value = _loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except RecursionError:
        raise MalformedBody("The request body is nested too deep.") from None
    except UnicodeDecodeError:
        raise MalformedBody("The request body is not UTF-8.") from None
    except UnicodeEncodeError:
        raise AmbiguousBody("A string holds half of a surrogate pair.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise MalformedBody(f"The request body is not JSON: {error.msg} at {place}.") from None
    except ValueError:
        # What is left is Python's own bound on the digits of an integer.
        raise AmbiguousBody("The request body holds a number with too many digits.") from None


def _check_containers(body: bytes) -> None:
    count = _brackets(body)
    if count > MAX_CONTAINERS:
        count -= sum(_brackets(string.group()) for string in _STRINGS.finditer(body))
    if count > MAX_CONTAINERS:
        raise AmbiguousBody(f"The request body holds {count} lists; no request has that many.")


def _brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _loads(text: str) -> Any:
    return json.loads(
        text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
    )


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
            self._json = parse_json(body)


def _read_large(body: bytes, kind: TypeAdapter[Any]) -> Any:
    """The body as the route declares it: models, which FastAPI takes as they are.

    Raises:
        RequestValidationError: it is none; FastAPI would complain of the same, on the event loop.
    """
    value = parse_json(body)
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        complaints = error.errors(include_url=False)
        located = [{**one, "loc": ("body", *one["loc"])} for one in complaints]
        raise RequestValidationError(located, body=value) from error


def _require_json(headers: Headers) -> None:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedMediaType("A compressed request body is not read; send it as it is.")
    declared = headers.get("content-type")
    if declared is None and not _has_body(headers):
        return
    media = Message()
    media["content-type"] = declared or "application/octet-stream"
    charset = media.get_content_charset("utf-8")
    if media.get_content_type() != "application/json" or charset not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("Send the request body as Content-Type: application/json.")


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise AmbiguousBody(f"An object has {len(pairs)} keys; no request has that many.")
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise AmbiguousBody("This key stands twice in one object.", param=key[:100])
        seen.add(key)
    raise RuntimeError("this is a bug: equal keys were counted and not found")


def _refuse_constant(name: str) -> NoReturn:
    raise AmbiguousBody(f"{name} is not a number that JSON knows.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise AmbiguousBody("The request body holds a number beyond the range of a float.")
    return number
