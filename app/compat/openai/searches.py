"""The searches behind the prompts of a completions request, as the native API knows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from app.compat.openai.plan import PromptPath
from app.compat.openai.request import CompletionRequest
from app.compat.openai.search_request import search_request
from app.compat.openai.token_fields import no_token_left
from app.requests.concurrently import all_of
from app.requests.deadline import Deadline
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import DecodedToken, DecodeResponse
from app.service import ScoringService
from model_runtime import ChainruleError, InvalidQuery, NothingFollows

T = TypeVar("T")
Event = DecodedToken | DecodeResponse

MAX_CONCURRENT = 64
"""Searches of one request that run side by side."""

MAX_BUFFERED = 64
"""Events of all streams together that may wait to be sent."""


async def run_searches(
    service: ScoringService,
    request: CompletionRequest,
    paths: Sequence[PromptPath],
    deadline: Deadline,
) -> list[DecodeResponse]:
    """What is found behind each prompt; the first failure ends the other searches.

    Raises:
        ChainruleError: what a search failed with, naming its prompt where that is at fault.
    """

    template, rules = _template(request), request.token_rules
    replies: dict[str, DecodeResponse] = {}
    left = iter(paths)

    async def search() -> None:
        for path in left:
            try:
                replies[path.param] = await service.decode(_search(template, path), deadline, rules)
            except InvalidQuery as error:
                raise located(error, request, path) from error

    await all_of(search() for _ in range(min(MAX_CONCURRENT, len(paths))))
    found = [replies[path.param] for path in paths]
    for path, reply in zip(paths, found, strict=True):
        if len(reply.sequences) < request.n:
            raise InvalidQuery(
                f"{path.param} has {len(reply.sequences)} completions and no more", "n"
            )
    return found


def stream_searches(
    service: ScoringService,
    request: CompletionRequest,
    paths: Sequence[PromptPath],
    deadline: Deadline,
) -> list[AsyncGenerator[Event, None]]:
    """For each prompt, each token behind it once it is chosen, then what was found.

    They raise as ``run_searches`` does.
    """
    template, rules = _template(request), request.token_rules

    async def stream(path: PromptPath) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(
                service.stream(_search(template, path), deadline, rules=rules)
            ) as events:
                async for event in events:
                    yield event
        except InvalidQuery as error:
            raise located(error, request, path) from error

    return [stream(path) for path in paths]


def _search(template: DecodeRequest, path: PromptPath) -> DecodeRequest:
    """The search behind one prompt; its ids have been checked, so nothing is validated again."""
    return template.model_copy(update={"context": list(path.ids)})


def _template(request: CompletionRequest) -> DecodeRequest:
    """The search behind any prompt."""
    return search_request(
        request,
        beams=request.beams,
        max_tokens=request.max_tokens,
        top_logprobs=request.logprobs,
    )


def located(error: ChainruleError, request: CompletionRequest, path: PromptPath) -> ChainruleError:
    """The error, naming the field at fault by its name here: mostly the prompt."""
    if not isinstance(error, InvalidQuery):
        return error
    if isinstance(error, NothingFollows) and request.token_rules.masks:
        return no_token_left(error, request, request.response_format)
    if error.param in ("num_beams", "num_return_sequences"):
        param = "n" if request.best_of is None else "best_of"
    elif error.param == "json_schema" and request.response_format is not None:
        param = request.response_format.param
    else:
        param = path.param
    return error.at(param)


async def interleave(
    streams: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """The events of the streams as they come, each with its stream's place; a window at a time.

    A stream that fails ends all of them. Whoever reads slowly slows them down.
    """
    queue: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue(MAX_BUFFERED)
    reading = asyncio.create_task(_read_all(streams, queue))
    try:
        while isinstance(event := await queue.get(), tuple):
            yield event
        if event is not None:
            raise event
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _read_all(
    streams: Sequence[AsyncGenerator[T, None]],
    queue: asyncio.Queue[tuple[int, T] | Exception | None],
) -> None:
    """Put the events into the queue, and behind them what the first stream has failed with."""
    left = enumerate(streams)

    async def read() -> None:
        for place, stream in left:
            async with aclosing(stream):
                async for event in stream:
                    await queue.put((place, event))

    end: Exception | None = None
    try:
        await all_of(read() for _ in range(min(MAX_CONCURRENT, len(streams))))
    except Exception as error:  # it belongs to the reader, whatever it is
        end = error
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise  # nobody reads any more
        end = RuntimeError("a stream was cancelled from inside")
        end.__cause__ = error
    await queue.put(end)
