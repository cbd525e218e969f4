"""The service in this process, asked as a server is, without HTTP in between."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from app.audit.service import AuditService
from app.cli.backend import Tell
from app.client import ClientError, InvalidRequest
from app.errors.table import RequestRefused, error_object
from app.requests.limits import Limits
from app.schemas.audit import AuditRequest
from app.schemas.audit_response import AuditResponse
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import DecodeResponse
from app.schemas.next_token import NextTokenRequest, NextTokenResponse
from app.schemas.request import Request
from app.service import ScoringService
from app.settings import Settings, log_ignored_variables
from app.telemetry.logs import configure_logging
from model_runtime import ChainruleError, Engine, ModelLoadError

T = TypeVar("T")
Q = TypeVar("Q", bound=Request)


class InProcessBackend:
    """A model that is loaded on entry and let go on exit.

    Args:
        settings: what to load, and within which bounds.
        engine: one that is loaded already.
    """

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self._settings = settings
        self._given = engine

    def __enter__(self) -> Self:
        configure_logging("warning", "text")
        log_ignored_variables()
        try:
            self._engine = self._given or Engine.load(self._settings.engine_config())
        except ModelLoadError as error:
            raise ClientError(str(error)) from error
        self._runner = asyncio.Runner()
        self._runner.run(self._engine.start())
        limits = Limits(
            max_candidates=self._settings.max_candidates,
            max_top_logprobs=self._settings.max_top_logprobs,
            default_timeout_ms=self._settings.default_timeout_ms,
        )
        self._service = ScoringService(self._engine, limits)
        self._audits = AuditService(self._service, self._engine, limits)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._engine.stop(0.0))
        self._runner.close()

    def next_token(self, **fields: Any) -> NextTokenResponse:
        """As ``Asker.next_token``."""
        return self._run(self._service.next_token(_made(NextTokenRequest, fields)))

    def decode(self, **fields: Any) -> DecodeResponse:
        """As ``Asker.decode``."""
        return self._run(self._service.decode(_made(DecodeRequest, fields)))

    def audit(self, **fields: Any) -> AuditResponse:
        """As ``Asker.audit``."""
        return self._run(self._audits.audit(_made(AuditRequest, fields)))

    def stream(self, tell: Tell, **fields: Any) -> DecodeResponse:
        """As ``Asker.stream``."""
        return self._run(self._told(_made(DecodeRequest, {**fields, "stream": True}), tell))

    async def _told(self, request: DecodeRequest, tell: Tell) -> DecodeResponse:
        async with aclosing(self._service.stream(request)) as events:
            async for event in events:
                if isinstance(event, DecodeResponse):
                    return event
                tell(event)
        raise RuntimeError("this is a bug: a stream has ended without its result")

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with _as_a_client_sees_it():
            return self._runner.run(work)


def _made(kind: type[Q], fields: dict[str, Any]) -> Q:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequest.of(error, fields) from None


@contextmanager
def _as_a_client_sees_it() -> Iterator[None]:
    try:
        yield
    except (ChainruleError, RequestRefused) as error:
        seen = error_object(error)
        raise ClientError(seen.message, param=seen.param, code=seen.code) from error
