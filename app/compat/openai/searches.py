"""The searches behind the prompts of a completions request, as the native API knows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from app.compat.openai.completions_wire import CompletionRequest
from app.compat.openai.patience import Patience
from app.compat.openai.prompts import PromptPath
from app.schemas.decode import DecodeRequest
from app.schemas.decode_reply import DecodedToken, DecodeResponse
from app.service import ScoringService
from model_runtime import ChainruleError, InvalidQuery

T = TypeVar("T")

AHEAD = 64
"""Events of all streams together that may wait to be sent."""


async def run_searches(
    service: ScoringService,
    request: CompletionRequest,
    paths: Sequence[PromptPath],
    patience: Patience,
) -> list[DecodeResponse]:
    """What is found behind each prompt; the first failure ends the other searches.

    Raises:
        ChainruleError: what a search failed with, naming its prompt where that is at fault.
    """

    async def search(path: PromptPath) -> DecodeResponse:
        try:
            return await patience.ask(
                lambda left_ms: service.decode(_search(request, path, left_ms))
            )
        except InvalidQuery as error:
            raise located(error, request, path) from error

    tasks = [asyncio.create_task(search(path)) for path in paths]
    try:
        replies = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    for path, reply in zip(paths, replies, strict=True):
        if len(reply.sequences) < request.n:
            raise InvalidQuery(
                f"n: {path.param} has {len(reply.sequences)} completions and no more", "n"
            )
    return replies


async def stream_search(
    service: ScoringService, request: CompletionRequest, path: PromptPath, left_ms: int | None
) -> AsyncGenerator[DecodedToken | DecodeResponse, None]:
    """Each token behind one prompt once it is chosen, then what was found.

    Raises:
        ChainruleError: as ``run_searches``.
    """
    try:
        async with aclosing(service.stream(_search(request, path, left_ms))) as events:
            async for event in events:
                yield event
    except InvalidQuery as error:
        raise located(error, request, path) from error


def _search(request: CompletionRequest, path: PromptPath, left_ms: int | None) -> DecodeRequest:
    """The search behind one prompt: greedy, or beams ranked by the mean log-probability."""
    several = request.beams > 1
    return DecodeRequest(
        model=request.model,
        priority=request.priority,
        timeout_ms=left_ms,
        cache_salt=request.cache_salt,
        context=list(path.ids),
        add_bos=False,
        strategy="beam" if several else "greedy",
        max_tokens=request.max_tokens,
        num_beams=request.beams if several else None,
        num_return_sequences=request.n if several else None,
        stop=request.stop,
        ignore_eos=request.ignore_eos,
        token_logprobs=request.logprobs is not None,
        top_logprobs=request.logprobs or 0,
        stream=request.stream,
    )


def located(error: ChainruleError, request: CompletionRequest, path: PromptPath) -> ChainruleError:
    """The error, naming the field at fault by its name here: mostly the prompt."""
    if not isinstance(error, InvalidQuery):
        return error
    if error.param in ("num_beams", "num_return_sequences"):
        param = "n" if request.best_of is None else "best_of"
    else:
        param = path.param
    return type(error)(f"{param}: {error}", param=param)


async def merged(
    streams: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """The events of all streams as they come, each with its stream's place.

    A stream that fails ends all of them. Whoever reads slowly slows them down.
    """
    queue: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue(AHEAD)

    async def pump(place: int, stream: AsyncGenerator[T, None]) -> None:
        end: Exception | None = None
        try:
            async with aclosing(stream):
                async for event in stream:
                    await queue.put((place, event))
        except Exception as error:  # it belongs to the reader, whatever it is
            end = error
        await queue.put(end)

    tasks = [asyncio.create_task(pump(*numbered)) for numbered in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            event = await queue.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                left -= 1
            else:
                yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
