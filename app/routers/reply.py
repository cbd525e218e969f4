"""A finished answer as a response."""

from __future__ import annotations

from fastapi import Response
from pydantic import BaseModel


def json_reply(answer: BaseModel) -> Response:
    """The answer as JSON by pydantic's own serializer, which is fast and prints exact floats.

    FastAPI would validate the answer again and build a Python object of it first.
    """
    return Response(answer.model_dump_json(), media_type="application/json")
