"""Whoever answers a command's question."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, Protocol

from app.client import Client
from app.schemas.audit_response import AuditResponse
from app.schemas.decode_response import DecodedToken, DecodeResponse
from app.schemas.next_token import NextTokenResponse

Tell = Callable[[DecodedToken], None]


class Backend(Protocol):
    """The verbs, with the request's fields as keywords.

    All of them raise ``ClientError``.
    """

    def next_token(self, **fields: Any) -> NextTokenResponse:
        """POST /v1/next_token."""

    def decode(self, **fields: Any) -> DecodeResponse:
        """POST /v1/decode."""

    def audit(self, **fields: Any) -> AuditResponse:
        """POST /v1/audit."""

    def stream(self, tell: Tell, **fields: Any) -> DecodeResponse:
        """POST /v1/decode, each token told as soon as it is there."""


class RemoteBackend:
    """A server, asked over HTTP."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.next_token = client.next_token
        self.decode = client.decode
        self.audit = client.audit

    def stream(self, tell: Tell, **fields: Any) -> DecodeResponse:
        """As ``Backend.stream``."""
        with closing(self._client.stream(**fields)) as events:
            for event in events:
                if isinstance(event, DecodeResponse):
                    return event
                tell(event)
        raise RuntimeError("this is a bug: a stream has ended without its result")
