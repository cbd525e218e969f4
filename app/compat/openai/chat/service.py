"""Chat completions over the scoring service: rows where words are scored, a search behind them.

::

    messages ── plan ──> rows of the last message, where it is echoed
                   └───> a greedy or beam search behind it, where more may follow
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from app.compat.openai.chat.choices import ChoiceWriter
from app.compat.openai.chat.plan import ChatPlan, plan_chat
from app.compat.openai.chat.request import ChatRequest
from app.compat.openai.chat.response import ChatCompletion, ChatCompletionChunk, ChunkChoice
from app.compat.openai.chat.search import check_count, located, search_behind
from app.compat.openai.prompt_logprobs import prompt_logprobs
from app.compat.openai.usage import UsageCounter
from app.requests.deadline import Deadline
from app.requests.limits import Limits
from app.schemas.decode_response import DecodedToken, DecodeResponse
from app.schemas.request import ServingOptions
from app.scoring.token_paths import PathScores
from app.service import ScoringService
from app.telemetry.request_facts import Facts
from model_runtime import ChainruleError, InvalidQuery, LogprobResult, ModelInfo, Tokenizer

Scored = PathScores[ChatPlan]


class ChatService:
    """Answers chats by asking the scoring service as any caller would.

    Args:
        service: as the request's tenant has it, and for the parts of one request.
        limits: the operator's bounds.
        facts: what the access log is told of the request.
    """

    def __init__(self, service: ScoringService, limits: Limits, facts: Facts) -> None:
        self._facts = facts
        self._service = service
        self._limits = limits

    def deadline(self, request: ChatRequest) -> Deadline:
        """When the request's time is over."""
        return self._service.deadline(request)

    async def complete(self, request: ChatRequest) -> ChatCompletion:
        """All choices.

        Raises:
            InvalidQuery: the messages or a setting are at fault; named.
            ChainruleError: what the engine fails with.
        """
        deadline = self.deadline(request)
        scored = await self._scored(request, deadline)
        reply = None
        if scored.plan.max_tokens:
            search = search_behind(request, scored.plan)
            try:
                reply = await self._service.decode(search, deadline, request.token_rules)
            except InvalidQuery as error:
                raise located(error, request) from error
            check_count(request, reply)
        written = partial(_written, request, scored, reply, self._facts)
        return await self._service.run_blocking(request, written)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The answer piece by piece: who speaks, then each token once it is chosen."""
        deadline = self.deadline(request)
        scored = await self._scored(request, deadline)
        counter = _counter(scored, self._facts)
        writer = await self._service.run_blocking(request, partial(_writer, request, scored))
        first: ChatCompletionChunk | None = _chunk(scored, writer.first_piece())
        found = None
        if scored.plan.max_tokens:
            async with aclosing(self._events(request, scored.plan, deadline)) as events:
                async for event in events:
                    # What is wrong with the search is known by now, and has a status of its own.
                    if first is not None:
                        yield first
                        first = None
                    if isinstance(event, DecodeResponse):
                        counter.add(event)
                        (found,) = event.sequences
                    else:
                        counter.stream()
                        yield _chunk(scored, writer.piece(event))
        if first is not None:
            yield first
        yield _chunk(scored, writer.last_piece(found))
        if request.stream_options is not None and request.stream_options.include_usage:
            yield _chunk(scored, None, counter)

    async def _events(
        self, request: ChatRequest, plan: ChatPlan, deadline: Deadline
    ) -> AsyncGenerator[DecodedToken | DecodeResponse, None]:
        search, rules = search_behind(request, plan), request.token_rules
        events = self._service.stream(search, deadline, rules=rules)
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        except InvalidQuery as error:
            raise located(error, request) from error

    async def _scored(self, request: ChatRequest, deadline: Deadline) -> Scored:
        serving_options = ServingOptions(
            model=request.model,
            priority=request.priority,
            cache_salt=request.cache_salt,
        )
        return await self._service.score_paths(
            serving_options, partial(plan_chat, request, self._limits), deadline
        )


def _counter(scored: Scored, facts: Facts) -> UsageCounter:
    return UsageCounter(scored, len(scored.plan.ids), scored.plan.needed, facts)


def _writer(
    request: ChatRequest, scored: Scored, tokenizer: Tokenizer, _info: ModelInfo
) -> ChoiceWriter:
    return ChoiceWriter(request, tokenizer, scored.plan, _answer(request, scored))


def _answer(request: ChatRequest, scored: Scored) -> LogprobResult | None:
    """Of the last message's rows; raises what they failed with."""
    for answer in scored.answers:
        if isinstance(answer, ChainruleError):
            raise located(answer, request)
        return answer
    return None


def _written(
    request: ChatRequest,
    scored: Scored,
    reply: DecodeResponse | None,
    facts: Facts,
    tokenizer: Tokenizer,
    info: ModelInfo,
) -> ChatCompletion:
    counter, writer = _counter(scored, facts), _writer(request, scored, tokenizer, info)
    if reply is None:
        choices = [writer.echo()]
    else:
        counter.add(reply)
        choices = [writer.choice(rank, found) for rank, found in enumerate(reply.sequences)]
    count, answer = request.prompt_logprobs, _answer(request, scored) or LogprobResult()
    return ChatCompletion(
        id=f"chatcmpl-{scored.id}",
        created=scored.created,
        model=scored.model,
        system_fingerprint=scored.fingerprint,
        choices=choices,
        usage=counter.usage(),
        prompt_logprobs=None
        if count is None
        else prompt_logprobs(tokenizer, scored.plan.ids, answer, count),
    )


def _chunk(
    scored: Scored, choice: ChunkChoice | None, counter: UsageCounter | None = None
) -> ChatCompletionChunk:
    return ChatCompletionChunk(
        id=f"chatcmpl-{scored.id}",
        created=scored.created,
        model=scored.model,
        system_fingerprint=scored.fingerprint,
        choices=[] if choice is None else [choice],
        usage=None if counter is None else counter.usage(),
    )


def chunk_size(chunk: ChatCompletionChunk) -> int:
    """Characters of a piece's text, and entries of its lists."""
    size = 0
    for choice in chunk.choices:
        size += len(getattr(choice.delta, "content", ""))
        if choice.logprobs is not None:
            size += sum(1 + len(token.top_logprobs) for token in choice.logprobs.content)
    return size
