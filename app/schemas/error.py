"""The one shape of every error, as OpenAI's clients read it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ErrorObject(BaseModel):
    """What went wrong, and which field is at fault."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    message: str
    """For people."""
    type: str
    """The kind of error, such as ``invalid_request_error``."""
    param: str | None = None
    """The field at fault, with dots and indices: ``candidates.3``."""
    code: str | None = None
    """For programs, such as ``context_length_exceeded``."""


class ErrorResponse(BaseModel):
    """The body of every response that is not a success."""

    model_config = ConfigDict(frozen=True)

    error: ErrorObject
