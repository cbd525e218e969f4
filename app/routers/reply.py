"""A finished answer as a response, and the failures that a route may answer with instead."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from fastapi import Response
from pydantic import BaseModel

from app.deadline import Deadline
from app.errors import ERROR_RESPONSES
from app.json_pieces import is_large, to_json_in_pieces
from app.schemas.error import ErrorResponse

Failures = dict[int | str, dict[str, Any]]

_NEVER: Final = Deadline(None)

_WRITERS: Final = ThreadPoolExecutor(2, "writer")
"""Write large answers. Whoever leaves gives back no thread before its answer is written."""

NOT_SERVED: Final[Failures] = {
    404: {"model": ErrorResponse, "description": "No such model is served here"}
}
WORK_FAILURES: Final[Failures] = {**ERROR_RESPONSES, **NOT_SERVED}
"""Of a route that asks the model, for the OpenAPI document."""

LOOKUP_FAILURES: Final[Failures] = {
    status: ERROR_RESPONSES[status] for status in (401, 413, 422, 500, 503)
}
"""Of a route that only looks something up."""


async def json_reply(answer: BaseModel, deadline: Deadline = _NEVER) -> Response:
    """The answer as JSON by pydantic's own serializer, which is fast and prints exact floats.

    FastAPI would validate the answer again and build a Python object of it first. A large answer
    is written beside the event loop.

    Raises:
        DeadlineExceeded: the time runs out before it is written.
    """
    if is_large(answer):
        writing = _WRITERS.submit(to_json_in_pieces, answer)
        content = await deadline.in_time(asyncio.wrap_future(writing))
    else:
        content = to_json_in_pieces(answer)
        deadline.check()
    return Response(content, media_type="application/json")
