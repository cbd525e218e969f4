"""The work of ``chainrule score``: records in, lines out, so many of them in flight."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from app.cli.daemon_thread import run_in_daemon_thread
from app.cli.score.record import Record
from app.client import ApiError, ClientError, FingerprintMismatch, InvalidRequest
from app.client.concurrency import ordered_map_async
from app.client.endpoints import build_request
from app.client.split.split_score import Answer
from app.schemas.error import ErrorObject
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse

_OF_ONE_LINE = frozenset({400, 413, 415, 422, 500, 501, 504})
"""Statuses that say something of the request; every other one would meet the next one as well."""

MAX_ID_DEPTH = 100
"""Lists and objects inside one another in an id, which is written back as it came."""

NOT_WRITTEN = {"id", "object", "created", "usage", "timings_ms"}
"""What differs between two runs with equal scores."""


class Scorer(Protocol):
    """Who is asked: a server, or a service in this process."""

    async def score(self, request: ScoreRequest, /) -> ScoreResponse:
        """The answer; raises ``ClientError``."""

    async def score_split(
        self, request: ScoreRequest, /, *, size: int, concurrency: int
    ) -> ScoreResponse:
        """The same, from requests of ``size`` candidates; raises ``ClientError``."""


class ResultWriter(Protocol):
    """Where the lines go. Each ends with its line's end."""

    def result(self, line: bytes) -> None:
        """Take the result of a record."""

    def error(self, line: bytes) -> None:
        """Take what is wrong with a record."""


@dataclass(frozen=True, slots=True)
class RecordRequest:
    """A record as a request, or why it is none.

    Attributes:
        line: of the record.
        id: what the record is called, in a dict of one entry; empty where it has no name.
        request: what is asked.
        names_model: whether the record itself says who is to answer.
    """

    line: int
    id: Mapping[str, Any]
    request: ScoreRequest | InvalidRequest
    names_model: bool = False


@runtime_checkable
class AnswerWriter(Protocol):
    """A ``ResultWriter`` that wants answers instead of lines."""

    def answered(
        self, question: RecordRequest, request: ScoreRequest, answer: ScoreResponse
    ) -> None:
        """Take the answer to a record."""


@dataclass(frozen=True, slots=True)
class ScoreRun:
    """How records are scored.

    Attributes:
        defaults: fields of the request that a record does not have itself.
        concurrency: requests in flight.
        size: lists with more candidates are split; None splits none.
        fingerprint: of the model that all must be scored by.
        read_at_once: records that are waited for together; more is faster where none is late.
    """

    defaults: Mapping[str, Any]
    concurrency: int
    size: int | None
    fingerprint: str
    read_at_once: int = 1

    async def run(
        self, client: Scorer, records: Iterable[Record], sink: ResultWriter
    ) -> AsyncGenerator[None, None]:
        """Write a line for each record, in order; yields after each.

        Raises:
            ClientError: something that is not one record's fault. What was in flight is dropped.
        """

        async def work(question: RecordRequest) -> tuple[RecordRequest, Answer]:
            try:
                return question, await self._answer(client, question)
            except ClientError as error:
                return question, error

        answers = ordered_map_async(self._questions(records), work, self.concurrency)
        async with aclosing(answers):
            async for question, answer in answers:
                self._write(question, answer, sink)
                yield

    async def _questions(self, records: Iterable[Record]) -> AsyncIterator[RecordRequest]:
        # Standard input may make one wait, and a long line takes long to parse.
        source = map(self._read, records)
        while some := await run_in_daemon_thread(_take, source, self.read_at_once):
            for question in some:
                yield question

    def _read(self, record: Record) -> RecordRequest:
        name: dict[str, Any] = {}
        try:
            fields = record.fields()
            if _is_deep(fields.get("id")):
                raise InvalidRequest(f"id: it is nested deeper than {MAX_ID_DEPTH}", param="id")
            if "id" in fields:
                name = {"id": fields.pop("id")}
            request = build_request(ScoreRequest, self.defaults, fields)
            return RecordRequest(record.line, name, request, fields.get("model") is not None)
        except InvalidRequest as error:
            return RecordRequest(record.line, name, error)

    async def _answer(self, client: Scorer, question: RecordRequest) -> ScoreResponse:
        request = question.request
        if isinstance(request, InvalidRequest):
            raise request
        if self.size is None or len(request.candidates) <= self.size:
            return await client.score(request)
        return await client.score_split(request, size=self.size, concurrency=1)

    def _write(self, question: RecordRequest, answer: Answer, sink: ResultWriter) -> None:
        head = {"line": question.line, **question.id}
        if isinstance(answer, ClientError):
            if not _is_of_one_line(answer, names_model=question.names_model):
                raise answer
            sink.error(_line({**head, "error": _shown(answer).model_dump()}))
            return
        if answer.fingerprint != self.fingerprint:
            raise FingerprintMismatch("the server has changed its model since this run began")
        if isinstance(sink, AnswerWriter) and isinstance(question.request, ScoreRequest):
            sink.answered(question, question.request, answer)
            return
        # The numbers are written by the serializer that the server writes them with.
        body = answer.model_dump_json(exclude=NOT_WRITTEN).encode()
        sink.result(_line(head)[:-2] + b"," + body[1:] + b"\n")


def _take(source: Iterator[RecordRequest], count: int) -> list[RecordRequest]:
    return list(islice(source, count))


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_ID_DEPTH + 1):
        level = [inner for one in level for inner in _inside(one)]
    return bool(level)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _is_of_one_line(error: ClientError, *, names_model: bool) -> bool:
    if isinstance(error, ApiError):
        if names_model and error.code == "model_not_found":
            return True
        return error.status in _OF_ONE_LINE
    return isinstance(error, InvalidRequest)


def _shown(error: ClientError) -> ErrorObject:
    kind = error.type if isinstance(error, ApiError) else None
    return ErrorObject(
        message=error.message,
        type=kind or "invalid_request_error",
        param=error.param,
        code=error.code,
    )


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
