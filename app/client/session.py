"""Which requests belong together: what ``X-Session-Id`` says of them.

What stands before several servers sends requests of equal ids to the same one, where the context
that they share is computed already.
"""

from __future__ import annotations

import hashlib
from typing import Final

from app.client.errors import InvalidRequest
from app.schemas.request import Request

CONTEXT: Final = "context"
"""The session of each request is its context."""

MAX_CHARS: Final = 128


def check_session(session: str | None) -> str | None:
    """The session itself. Raises ``InvalidRequest`` for one that no header can hold."""
    if session is not None:
        can_be_sent = session.isascii() and session.isprintable() and session.strip()
        if not can_be_sent or len(session) > MAX_CHARS:
            words = f"session: it is 1 to {MAX_CHARS} printable ASCII characters"
            raise InvalidRequest(words, param="session")
    return session


def session_id(session: str | None, request: Request) -> str | None:
    """What is sent with a request: the session, or 128 bits of its context's hash in hex.

    Equal contexts have equal ids in every process; the rest of the request does not count.
    """
    if check_session(session) != CONTEXT:
        return session
    context = request.model_dump_json(
        include={"context"}, exclude_unset=True, serialize_as_any=True
    )
    return hashlib.sha256(context.encode()).hexdigest()[:32]
