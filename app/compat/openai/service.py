"""Completions over the scoring service: rows where rows suffice, searches where they do not.

::

    prompts ── plan ──> rows of echoed prompts, and the row behind them where one token follows
                  └───> a greedy or beam search behind each prompt where more may follow
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from app.compat.openai.choices import (
    NO_COMPLETION,
    ChoiceBuilder,
    ChunkBuilder,
    Generated,
    decoded,
    next_token,
)
from app.compat.openai.plan import Plan, is_one_greedy_token, plan_prompts
from app.compat.openai.request import CompletionRequest
from app.compat.openai.response import Completion, CompletionChoice
from app.compat.openai.searches import interleave, located, run_searches, stream_searches
from app.compat.openai.usage import CompletionBuilder
from app.requests.deadline import Deadline
from app.requests.limits import Limits
from app.requests.worker_threads import check_wanted
from app.schemas.decode_response import DecodeResponse
from app.schemas.request import ServingOptions
from app.scoring.token_paths import PathScores
from app.service import ScoringService
from app.telemetry.request_facts import Facts
from model_runtime import ChainruleError, LogprobResult, ModelInfo, Tokenizer

Answers = list[LogprobResult | None]
"""One for each prompt; None where nothing was asked about it."""


class CompletionService:
    """Answers completions by asking the scoring service as any caller would.

    Args:
        service: as the request's tenant has it, and for the parts of one request.
        limits: the operator's bounds.
        facts: what the access log is told of the request.
    """

    def __init__(self, service: ScoringService, limits: Limits, facts: Facts) -> None:
        self._facts = facts
        self._service = service
        self._limits = limits

    def deadline(self, request: CompletionRequest) -> Deadline:
        """When the request's time is over."""
        return self._service.deadline(request)

    async def complete(self, request: CompletionRequest) -> Completion:
        """All choices, or no answer at all.

        Raises:
            InvalidQuery: a prompt or a setting is at fault; named.
            ChainruleError: what the engine fails with, for any of the prompts.
        """
        deadline = self.deadline(request)
        scored = await self._scored(request, deadline)
        replies: list[DecodeResponse] = []
        if request.max_tokens and not is_one_greedy_token(request):
            paths = scored.plan.paths
            replies = await run_searches(self._service, request, paths, deadline)
        written = partial(
            _written, request, scored, _answers(request, scored), replies, self._facts
        )
        return await self._service.run_blocking(request, written)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Completion, None]:
        """The choices piece by piece: an echo first, then each token once it is chosen."""
        deadline = self.deadline(request)
        scored = await self._scored(request, deadline)
        builder = CompletionBuilder(scored, self._facts)
        writers = await self._service.run_blocking(
            request, partial(_piece_writers, request, scored.plan, _answers(request, scored))
        )
        if request.echo:
            for writer in writers:
                yield builder.chunk(writer.echo())
        if request.max_tokens:
            streams = stream_searches(self._service, request, scored.plan.paths, deadline)
            async with aclosing(interleave(streams)) as events:
                async for place, event in events:
                    if isinstance(event, DecodeResponse):
                        builder.add(event)
                        yield builder.chunk(writers[place].end(event.sequences[0]))
                    else:
                        builder.stream()
                        yield builder.chunk(writers[place].token(event))
        if request.stream_options is not None and request.stream_options.include_usage:
            yield builder.chunk(None)

    async def _scored(self, request: CompletionRequest, deadline: Deadline) -> PathScores[Plan]:
        serving_options = ServingOptions(
            model=request.model,
            priority=request.priority,
            cache_salt=request.cache_salt,
        )
        return await self._service.score_paths(
            serving_options, partial(plan_prompts, request, self._limits), deadline
        )


def _answers(request: CompletionRequest, scored: PathScores[Plan]) -> Answers:
    """Raises what a prompt failed with: whoever reads a batch would not notice a hole in it."""
    plan, left = scored.plan, iter(scored.answers)
    answers: Answers = []
    for path, asked in zip(plan.paths, plan.asked, strict=True):
        answer = next(left) if asked else None
        if isinstance(answer, ChainruleError):
            raise located(answer, request, path)
        answers.append(answer)
    return answers


def _written(
    request: CompletionRequest,
    scored: PathScores[Plan],
    answers: Answers,
    replies: Sequence[DecodeResponse],
    facts: Facts,
    tokenizer: Tokenizer,
    info: ModelInfo,
) -> Completion:
    builder = CompletionBuilder(scored, facts)
    choices: list[CompletionChoice] = []
    for place, (path, answer) in enumerate(zip(scored.plan.paths, answers, strict=True)):
        check_wanted()
        completions: list[Generated] = [NO_COMPLETION]
        if replies:
            builder.add(replies[place])
            completions = [decoded(request, found) for found in replies[place].sequences]
        elif request.max_tokens and answer is not None:
            completions = [next_token(request, tokenizer, info, answer.top[-1])]
            builder.completion_tokens += 1
        writer = ChoiceBuilder(request, tokenizer, path, answer)
        choices += [
            writer.choice(place * request.n + rank, completion)
            for rank, completion in enumerate(completions)
        ]
    return builder.response(choices)


def _piece_writers(
    request: CompletionRequest,
    plan: Plan,
    answers: Answers,
    tokenizer: Tokenizer,
    _info: ModelInfo,
) -> list[ChunkBuilder]:
    return [
        ChunkBuilder(request, tokenizer, index, ChoiceBuilder(request, tokenizer, path, answer))
        for index, (path, answer) in enumerate(zip(plan.paths, answers, strict=True))
    ]
