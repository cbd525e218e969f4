"""A large answer as JSON, piece by piece: no piece keeps the interpreter's lock for long.

pydantic writes a whole model without letting anybody else run; of a response with a hundred
thousand entries the event loop would notice. The bytes are the same as pydantic's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass
from functools import cache
from itertools import islice
from types import NoneType
from typing import Any, Final

from fastapi import Response
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json

from app.errors.table import ERROR_RESPONSES
from app.requests.deadline import Deadline
from app.schemas.error import ErrorResponse
from app.telemetry.request_trace import stage

PIECE = 512
"""Entries of lists, however deep, that are written at once."""

_SCALARS: Final = frozenset({int, float, str, bool, NoneType})
"""Without entries. Most values are, and asking whether one is a model takes longer."""


def is_large(value: object) -> bool:
    """Whether the lists in a value have more entries than are written at once."""
    return next(islice(_entries(value), PIECE, None), None) is not None


def dump_json_chunked(answer: BaseModel) -> bytes:
    """What ``answer.model_dump_json()`` is, in UTF-8."""
    return b"".join(_pieces(answer))


def _entries(value: object) -> Iterator[int]:
    """Something for each entry of a list or of an object without a schema."""
    if isinstance(value, BaseModel):
        for _, field in value:
            if type(field) not in _SCALARS:
                yield from _entries(field)
    elif isinstance(value, list | dict):
        for entry in value.values() if isinstance(value, dict) else value:
            yield 1
            if type(entry) not in _SCALARS:
                yield from _entries(entry)


def _pieces(value: object) -> Iterator[bytes]:
    if isinstance(value, BaseModel) and is_large(value):
        for number, (name, field) in enumerate(_fields(value)):
            yield (b"," if number else b"{") + to_json(name) + b":"
            yield from _pieces(field)
        yield b"}"
    elif isinstance(value, list) and is_large(value):
        for number, group in enumerate(_groups(value)):
            yield b"," if number else b"["
            if len(group) == 1:
                yield from _pieces(group[0])
            else:
                yield _written(group)[1:-1]
        yield b"]"
    else:
        yield _written(value)


def _written(value: object) -> bytes:
    entries = value if isinstance(value, list) else [value]
    kind = type(entries[0]) if entries else type(value)
    if not is_dataclass(kind):
        return to_json(value, inf_nan_mode="null")
    # Without its schema pydantic writes every field of a dataclass, those to be left out as well.
    written = _adapter(kind).dump_json(entries)
    return written if entries is value else written[1:-1]


@cache
def _adapter(entry: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(list[entry])  # type: ignore[valid-type]


def _fields(model: BaseModel) -> Iterator[tuple[str, object]]:
    """The fields that are not left out of the JSON."""
    for name, value in model:
        is_left_out = type(model).model_fields[name].exclude_if
        if is_left_out is None or not is_left_out(value):
            yield name, value


def _groups(entries: Sequence[object]) -> Iterator[Sequence[object]]:
    """Entries that are written at once; one that is itself too large for that is alone."""
    first = held = 0
    for place, entry in enumerate(entries):
        size = _size(entry)
        if held and held + size > PIECE:
            yield entries[first:place]
            first, held = place, 0
        held += size
    yield entries[first:]


def _size(entry: object) -> int:
    """The entry and those in it; not further than tells that they are too many."""
    if not isinstance(entry, BaseModel | list | dict):
        return 1
    return 1 + sum(islice(_entries(entry), PIECE))


Failures = dict[int | str, dict[str, Any]]

_NEVER: Final = Deadline(None)

_WRITERS: Final = ThreadPoolExecutor(2, "writer")
"""Write large answers. Whoever leaves gives back no thread before its answer is written."""

NOT_SERVED: Final[Failures] = {
    404: {"model": ErrorResponse, "description": "No such model is served here"}
}
OTHER_CALIBRATION: Final[Failures] = {
    409: {"model": ErrorResponse, "description": "The calibration is of other answers than these"}
}
WORK_FAILURES: Final[Failures] = {**ERROR_RESPONSES, **NOT_SERVED}
"""Of a route that asks the model, for the OpenAPI document."""

LOOKUP_FAILURES: Final[Failures] = {
    status: ERROR_RESPONSES[status] for status in (401, 413, 422, 500, 503)
}
"""Of a route that only looks something up."""


async def write_on_thread(write: Callable[..., bytes], *args: Any) -> bytes:
    """What ``write`` returns, beside the event loop."""
    return await asyncio.wrap_future(_WRITERS.submit(write, *args))


async def json_reply(answer: BaseModel, deadline: Deadline = _NEVER) -> Response:
    """The answer as JSON by pydantic's own serializer, which is fast and prints exact floats.

    FastAPI would validate the answer again and build a Python object of it first. A large answer
    is written beside the event loop.

    Raises:
        DeadlineExceeded: the time runs out before it is written.
    """
    with stage("serialize"):
        if is_large(answer):
            content = await deadline.run_before(write_on_thread(dump_json_chunked, answer))
        else:
            content = dump_json_chunked(answer)
            deadline.check()
    return Response(content, media_type="application/json")
