"""The bodies of failed requests where a path speaks another API's dialect.

Everywhere else it is the OpenAI object, ``{"error": {"message", "type", "param", "code"}}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from app.schemas.error import ErrorObject, ErrorResponse

Shape = Callable[[int, ErrorObject], tuple[int, dict[str, Any]]]


def error_body(path: str, status: int, error: ErrorObject) -> tuple[int, str]:
    """The status and the JSON that a client of ``path`` is told."""
    shape = SHAPES.get(path)
    if shape is None:
        return status, ErrorResponse(error=error).model_dump_json()
    status, body = shape(status, error)
    return status, json.dumps(body, ensure_ascii=False)


def _cohere(status: int, error: ErrorObject) -> tuple[int, dict[str, Any]]:
    return status, {"message": error.message}


def _cohere_or_jina(status: int, error: ErrorObject) -> tuple[int, dict[str, Any]]:
    return status, {"message": error.message, "detail": error.message}


_TEI_KINDS: Final = {413: "Validation", 422: "Validation", 429: "Overloaded", 503: "Unhealthy"}


def _tei(status: int, error: ErrorObject) -> tuple[int, dict[str, Any]]:
    """Of text-embeddings-inference; what the model or its queue fails with is its 424."""
    if status in (500, 504):
        return 424, {"error": error.message, "error_type": "Backend"}
    return status, {"error": error.message, "error_type": _TEI_KINDS.get(status, "Validation")}


SHAPES: Final[dict[str, Shape]] = {
    "/v2/rerank": _cohere,
    "/v1/rerank": _cohere_or_jina,
    "/rerank": _tei,
}
