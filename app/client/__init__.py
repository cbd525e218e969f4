"""A typed client of the native API: ``Client``, and ``AsyncClient`` for an event loop.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.score(context="The capital of France is", candidates=[" Paris", " Rome"])
        print(answer.results[0].logprob)

What to send, what an answer means and when to ask again is decided without I/O, once for both.
"""

from app.client.async_client import AsyncClient
from app.client.display.answers import AuditAnswer, DecodeAnswer, NextTokenAnswer, ScoreAnswer
from app.client.errors import (
    ApiError,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    FingerprintMismatch,
    InvalidRequest,
    InvalidResponse,
    Overloaded,
    RequestFailed,
    RequestRefused,
    Unauthorized,
    Unavailable,
)
from app.client.retry import Retries
from app.client.sync_client import Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "AuditAnswer",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DecodeAnswer",
    "FingerprintMismatch",
    "InvalidRequest",
    "InvalidResponse",
    "NextTokenAnswer",
    "Overloaded",
    "RequestFailed",
    "RequestRefused",
    "Retries",
    "ScoreAnswer",
    "Unauthorized",
    "Unavailable",
]
