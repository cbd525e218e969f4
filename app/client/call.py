"""What is asked of a server, without any I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.client.errors import InvalidResponse

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """What is to be asked.

    Attributes:
        method, path: of the request.
        body: JSON; None for none.
        read: the answer from its bytes. Raises ``ValueError`` for what is none.
        request_id: sent as ``X-Request-Id``, the same one at every attempt.
        session_id: sent as ``X-Session-Id``; None for none.
        also: statuses beyond 2xx whose body is an answer as well.
    """

    method: str
    path: str
    body: bytes | None
    read: Callable[[bytes], T]
    request_id: str
    also: frozenset[int] = frozenset()
    session_id: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Those that belong to this call."""
        kind = {} if self.body is None else {"Content-Type": "application/json"}
        session = {} if self.session_id is None else {"X-Session-Id": self.session_id}
        return {"X-Request-Id": self.request_id, **session, **kind}

    def answer(self, body: bytes) -> T:
        """What a body answers. Raises ``InvalidResponse`` where it is none of this server."""
        try:
            return self.read(body)
        except ValueError as error:
            raise self.invalid(f"was answered with something else: {error}") from error

    def invalid(self, what: str) -> InvalidResponse:
        """The error for a path of which ``what`` is to be said."""
        return InvalidResponse(f"{self.path} {what}", request_id=self.request_id)
