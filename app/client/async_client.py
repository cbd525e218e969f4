"""``AsyncClient``. ``make client-sync`` writes ``Client`` from this file."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Literal, Self, TypeVar, overload

import httpx
from httpx_sse import EventSource, SSEError
from tenacity import AsyncRetrying

from app.client.call import Call
from app.client.concurrency import AsyncItems, AsyncResults, ordered_map_async, sleep_async
from app.client.display.answers import AuditAnswer, DecodeAnswer, NextTokenAnswer, ScoreAnswer
from app.client.endpoints import (
    AuditGiven,
    DecodeGiven,
    Given,
    NextTokenGiven,
    ScoreGiven,
    audit_call,
    build_request,
    calibrate_call,
    decode_call,
    health_call,
    models_call,
    next_token_call,
    score_call,
)
from app.client.errors import ClientError
from app.client.retry import Retries
from app.client.split.split_score import Answer, check_size, split_score
from app.client.sse import AnswerStream
from app.client.transport import Options, connection_failed, refused
from app.schemas.audit import AuditRequest
from app.schemas.calibration import FittedCalibration
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import DecodedToken
from app.schemas.models import ModelCard
from app.schemas.next_token import NextTokenRequest
from app.schemas.score import ScoreRequest

T = TypeVar("T")


class AsyncClient:
    """Asks one server. Connections are kept; threads or tasks may share a client.

    Every verb takes its request whole (``ScoreRequest(...)``), as a mapping, or as the request's
    fields by keyword. ``request_id`` names it in the server's log; by default it gets a new one.
    ``session`` is the client's unless one is given: equal ones are sent to the same of several
    servers by what stands before them.

    Args:
        base_url: of the server, as ``http://127.0.0.1:8000``; ``/v1`` at its end changes nothing.
            A user's name or password in it is refused, and not repeated in the error.
        api_key: one of the server's, where it has any.
        timeout_s: seconds that a single attempt may be without an answer.
        retries: how persistent to be.
        session: sent with every request; ``"context"`` sends a hash of the request's context, so
            that equal contexts meet; None sends nothing.
        transport: what httpx sends through, for tests; None for the network.

    Raises:
        ClientError: see ``app.client.errors`` for its kinds; every verb raises them.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 300.0,
        retries: Retries | None = None,
        session: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._options = Options(base_url, api_key, timeout_s, retries or Retries(), session)
        self._http = httpx.AsyncClient(transport=transport, **self._options.http())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(
        self,
        request: ScoreGiven | None = None,
        /,
        *,
        request_id: str | None = None,
        session: str | None = None,
        **fields: Any,
    ) -> ScoreAnswer:
        """log P(candidate | context) for each candidate."""
        whole = build_request(ScoreRequest, request, fields)
        return await self._ask(score_call(whole, request_id, self._session(session)))

    async def next_token(
        self,
        request: NextTokenGiven | None = None,
        /,
        *,
        request_id: str | None = None,
        session: str | None = None,
        **fields: Any,
    ) -> NextTokenAnswer:
        """The asked part of the distribution of the token after the context."""
        whole = build_request(NextTokenRequest, request, fields)
        return await self._ask(next_token_call(whole, request_id, self._session(session)))

    async def decode(
        self,
        request: DecodeGiven | None = None,
        /,
        *,
        request_id: str | None = None,
        session: str | None = None,
        **fields: Any,
    ) -> DecodeAnswer:
        """The most probable continuations."""
        whole = build_request(DecodeRequest, request, {**fields, "stream": False})
        return await self._ask(decode_call(whole, request_id, self._session(session)))

    def stream(
        self,
        request: DecodeGiven | None = None,
        /,
        *,
        request_id: str | None = None,
        session: str | None = None,
        **fields: Any,
    ) -> AsyncResults[DecodedToken | DecodeAnswer]:
        """Each token of a greedy completion as it is chosen, then what ``decode`` answers.

        Once it has begun it is not sent again.
        """
        streamed = build_request(DecodeRequest, request, {**fields, "stream": True})
        return self._events(decode_call(streamed, request_id, self._session(session)))

    async def audit(
        self,
        request: AuditGiven | None = None,
        /,
        *,
        request_id: str | None = None,
        session: str | None = None,
        **fields: Any,
    ) -> AuditAnswer:
        """What scores are made of, and what decides between candidates."""
        whole = build_request(AuditRequest, request, fields)
        return await self._ask(audit_call(whole, request_id, self._session(session)))

    async def calibrate(
        self, request: Given | None = None, /, *, request_id: str | None = None, **fields: Any
    ) -> FittedCalibration:
        """A calibration that fits labelled questions."""
        return await self._ask(calibrate_call({**(request or {}), **fields}, request_id))

    async def models(self) -> list[ModelCard]:
        """What is served, and its limits."""
        return await self._ask(models_call())

    async def health(self) -> dict[str, Any]:
        """What the server is doing; also where it is not ready."""
        return await self._ask(health_call())

    async def score_split(
        self,
        request: ScoreGiven | None = None,
        /,
        *,
        size: int = 1024,
        concurrency: int = 4,
        **fields: Any,
    ) -> ScoreAnswer:
        """One long list over requests of ``size`` candidates, with the numbers of one request.

        See ``split_score`` in ``app.client.split`` for what that means and what cannot be split.
        """
        whole = build_request(ScoreRequest, request, fields)
        return await self._split(whole, check_size(size), concurrency)

    @overload
    def score_many(
        self,
        requests: AsyncItems[ScoreGiven],
        *,
        concurrency: int = ...,
        size: int | None = ...,
        return_errors: Literal[False] = ...,
    ) -> AsyncResults[ScoreAnswer]: ...
    @overload
    def score_many(
        self,
        requests: AsyncItems[ScoreGiven],
        *,
        concurrency: int = ...,
        size: int | None = ...,
        return_errors: Literal[True],
    ) -> AsyncResults[ScoreAnswer | ClientError]: ...
    def score_many(
        self,
        requests: AsyncItems[ScoreGiven],
        *,
        concurrency: int = 8,
        size: int | None = None,
        return_errors: bool = False,
    ) -> AsyncResults[Any]:
        """The answers in the order of the requests, ``concurrency`` of them in flight.

        The requests may be endless: they are read as answers are taken, with at most
        ``4 * concurrency`` read ahead. Closing the generator early drops what waits. Of what is in
        flight then, tasks are cancelled, and threads end with their request.

        Args:
            requests: whole, or as mappings of their fields; for tasks also an asynchronous source.
            concurrency: requests in flight.
            size: lists with more candidates are split, as by ``score_split``.
            return_errors: give what a request failed with in its place, instead of raising it.
        """
        if size is not None:
            check_size(size)

        async def work(given: ScoreGiven) -> Answer:
            try:
                request = build_request(ScoreRequest, given, {})
                if size is None or len(request.candidates) <= size:
                    return await self.score(request)
                return await self._split(request, size, 1)
            except ClientError as error:
                if return_errors:
                    return error
                raise

        return ordered_map_async(requests, work, concurrency)

    async def _split(self, whole: ScoreRequest, size: int, concurrency: int) -> ScoreAnswer:
        """Ask for the parts until they make up the answer."""
        rounds = split_score(whole, size)

        async def attempt(request: ScoreRequest) -> Answer:
            try:
                return await self.score(request)
            except ClientError as error:
                return error

        try:
            requests = next(rounds)
            while True:
                answers = ordered_map_async(requests, attempt, concurrency)
                requests = rounds.send([answer async for answer in answers])
        except StopIteration as end:
            return ScoreAnswer.of(end.value, whole)

    def _session(self, own: str | None) -> str | None:
        return self._options.session if own is None else own

    async def _ask(self, call: Call[T]) -> T:
        return call.answer((await self._send(call)).content)

    async def _events(self, call: Call[DecodeAnswer]) -> AsyncResults[DecodedToken | DecodeAnswer]:
        stream = AnswerStream(call)
        async with aclosing(await self._send(call, stream=True)) as response:
            try:
                async for event in EventSource(response).aiter_sse():
                    if (answer := stream.read(event)) is not None:
                        yield answer
            except SSEError as error:
                raise call.invalid(f"sent no stream: {error}") from error
            except httpx.HTTPError as error:
                raise connection_failed(call, error) from error
        stream.end()

    async def _send(self, call: Call[T], *, stream: bool = False) -> httpx.Response:
        """The response of the first attempt that succeeds; a stream's body is not read."""
        retries = self._options.retries
        async for attempt in AsyncRetrying(sleep=sleep_async, **retries.rules()):
            with attempt:
                left_s = retries.left_s(attempt.retry_state)
                response = await self._attempt(call, left_s, stream)
        return response

    async def _attempt(self, call: Call[T], left_s: float, stream: bool) -> httpx.Response:
        request = self._http.build_request(**self._options.request(call, left_s))
        try:
            response = await self._http.send(request, stream=stream)
            if response.is_success or response.status_code in call.also:
                return response
            async with aclosing(response):
                raise refused(call, response, await response.aread())
        except httpx.HTTPError as error:
            raise connection_failed(call, error) from error
