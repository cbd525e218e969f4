"""Text to token ids, token ids to the engine, its answers to text. Knows no HTTP, no tensors.

Every answer takes the same way; only tokenizing and rendering leave the event loop::

    request ── admit ──> plan ──> queries or a search ── engine ──> answers ── render ──> response
                         (thread)                       (awaited)           (thread, if large)

A request is refused at once where the queue is nearly full or too much waits to be tokenized, so
that no line grows before the threads, or waits where its parts may (``for_parts``); it is admitted
by its own cost when it is asked. Where scores
are kept it may need no room in the queue, and is tokenized in any case.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from copy import copy
from typing import Any, TypeVar
from uuid import uuid4

from app.cache.cached_scorer import CachedScorer
from app.cache.score_cache import ScoreCache
from app.decoding.plan import DecodePlan, attributed_to_constraint, plan_decode
from app.decoding.results import build_decode_body, combine_outputs
from app.decoding.run import run_concurrently
from app.decoding.stream import TokenStream
from app.decoding.token_rules import NO_RULES, TokenRules
from app.errors.table import ModelNotServed
from app.requests.deadline import Deadline
from app.requests.limits import Limits
from app.requests.model_card import model_card
from app.requests.request_context import RequestContext
from app.requests.token_estimate import least_tokens, takes_long
from app.requests.worker_threads import WorkerThreads
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import DecodedToken, DecodeResponse
from app.schemas.models import ModelCard, ModelList, RerankCard
from app.schemas.next_token import NextTokenRequest, NextTokenResponse
from app.schemas.request import ServingOptions
from app.schemas.score import ScoreRequest
from app.schemas.score_response import BoundaryReport, ScoreResponse
from app.scoring.marginal_plan import plan_marginal
from app.scoring.marginal_response import build_marginal
from app.scoring.next_token import build_distribution, plan_next_token
from app.scoring.plan import ScorePlan, plan_score
from app.scoring.response import ScoreBody, build_scores
from app.scoring.token_paths import PathQueries, PathScores
from app.scoring.top_n import top_search
from app.telemetry.request_facts import Facts
from app.telemetry.request_trace import stage
from model_runtime import (
    ChainruleError,
    DecodingResult,
    Engine,
    LogprobQuery,
    ModelInfo,
    Priority,
    RequestOutput,
    Tokenizer,
    TopCandidates,
)

T = TypeVar("T")

MAX_THREADS = 4
"""Threads that tokenize and render; beyond the cores they would only take turns. There are two at
least: one is left to interactive work."""

LARGE = 64
"""Entries beyond which an answer takes longer to put together than to change threads."""


class ScoringService:
    """The native API's verbs over one engine.

    Every verb raises ``InvalidQuery`` kinds for what the caller did wrong, naming the field,
    ``ModelNotServed`` for another model's name, and whatever the engine fails with. What is a
    part of a larger request is given that one's ``deadline``, and has none of its own.

    Args:
        engine: loaded and started.
        limits: the operator's bounds.
        cache: where finished scores are kept; None keeps none.
        rerank: how the model's own folder has documents ranked, for its card.
        aliases: names under which the model is served beside its own.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits | None = None,
        cache: ScoreCache | None = None,
        rerank: RerankCard | None = None,
        aliases: Sequence[str] = (),
    ) -> None:
        self._engine = engine
        self._names = tuple(dict.fromkeys((engine.info.name, *aliases)))
        self._limits = limits or Limits()
        self._rerank = rerank
        kept = ScoreCache() if cache is None else cache
        self._keeps_scores = kept.enabled
        self._threads = WorkerThreads(max(2, min(MAX_THREADS, os.cpu_count() or 1)))
        self._scores = CachedScorer(
            lambda queries, options: engine.score(queries, options),
            engine.info.fingerprint,
            kept,
            self._threads,
        )
        self._tenant = self._parent = ""
        self._arrived: float | None = None

    def for_request(self, tenant: str = "", arrived: float | None = None) -> ScoringService:
        """The same service, as one request has it.

        Args:
            tenant: whose computation it shares, and nobody else's. The empty name is a tenant
                like any other, and what every request has by default.
            arrived: when the time of its deadline began, in seconds of ``time.monotonic``; None
                for whenever it asks.
        """
        service = copy(self)
        service._tenant, service._arrived = tenant, arrived
        return service

    def for_parts(self) -> ScoringService:
        """The same service for the parts of one request, which waits where the queue is full."""
        service = copy(self)
        service._parent = uuid4().hex
        return service

    async def score(self, request: ScoreRequest, deadline: Deadline | None = None) -> ScoreResponse:
        """log P(candidate | context) for each candidate, in the request's order."""
        engine, request_context = self._engine, self._open_context(request, deadline)
        if request.boundary == "marginal":
            return await self._score_marginal(request, request_context)
        plan, asked = await self._planned(request_context, request, self._plan_score, request)
        options = request_context.engine_options()
        outcome: RequestOutput[Any]
        if isinstance(asked, TopCandidates):
            outcome = await engine.decode(asked, options)
            request_context.search_ended()
        else:
            outcome = await self._scores.score(asked, options, beside=plan.queries_beside)
        lists = request.lists_tokens or request.receipt
        large = lists or len(request.candidates) > LARGE
        answer = await self._render(
            request_context, large, build_scores, engine.tokenizer, engine.info, plan, outcome.value
        )
        return self._scored(request_context, outcome, plan.boundary, answer)

    async def _score_marginal(
        self, request: ScoreRequest, request_context: RequestContext
    ) -> ScoreResponse:
        """The same, summed over every tokenization of each candidate."""
        engine = self._engine
        plan = await self._planned(request_context, request, plan_marginal, request)
        outcome = await engine.decode(plan.search, request_context.engine_options())
        request_context.search_ended()
        large = len(request.candidates) > LARGE
        answer = await self._render(
            request_context, large, build_marginal, engine.info, plan, outcome.value
        )
        return self._scored(request_context, outcome, plan.boundary, answer)

    def _scored(
        self,
        request_context: RequestContext,
        outcome: RequestOutput[Any],
        boundary: BoundaryReport,
        answer: ScoreBody,
    ) -> ScoreResponse:
        return ScoreResponse(
            results=answer.results,
            compact=answer.compact,
            top=answer.top,
            off_candidate_mass=answer.off_candidate_mass,
            off_candidate_mass_bounds=answer.off_candidate_mass_bounds,
            boundary=boundary,
            receipt=answer.receipt,
            warnings=[*answer.warnings],
            **request_context.response_fields(
                "score",
                self._engine.info,
                outcome,
                prompt_tokens=boundary.context_tokens,
                scored_tokens=answer.scored_tokens,
            ),
        )

    async def next_token(
        self, request: NextTokenRequest, deadline: Deadline | None = None
    ) -> NextTokenResponse:
        """The asked part of the distribution of the token after the context."""
        engine, request_context = self._engine, self._open_context(request, deadline)
        most = self._limits.max_top_logprobs
        plan = await self._planned(request_context, request, plan_next_token, most, request)
        outcome = await self._scores.score((plan.query,), request_context.engine_options())
        (answer,) = outcome.value
        if isinstance(answer, ChainruleError):
            raise answer
        large = plan.query.top_k > LARGE
        found = await self._render(
            request_context, large, build_distribution, engine.tokenizer, plan, answer
        )
        return NextTokenResponse(
            tokens=found.tokens,
            chosen=found.chosen,
            entropy=found.entropy,
            remaining_probability=found.remaining_probability,
            **request_context.response_fields(
                "next", engine.info, outcome, prompt_tokens=plan.prompt_tokens, scored_tokens=1
            ),
        )

    async def decode(
        self,
        request: DecodeRequest,
        deadline: Deadline | None = None,
        rules: TokenRules = NO_RULES,
    ) -> DecodeResponse:
        """The continuations that the searches find, best first."""
        request_context, plan = await self._plan_decode(request, deadline, rules)
        with attributed_to_constraint(request):
            outcomes = await run_concurrently(self._engine, plan, request_context.engine_options())
        return await self._decoded(request_context, plan, combine_outputs(outcomes))

    async def stream(
        self,
        request: DecodeRequest,
        deadline: Deadline | None = None,
        facts: Facts | None = None,
        rules: TokenRules = NO_RULES,
    ) -> AsyncGenerator[DecodedToken | DecodeResponse, None]:
        """Each token of a greedy completion once it is chosen, then what ``decode`` answers.

        ``facts`` are told the tokens so far: whoever reads may leave before the answer.
        """
        facts = {} if facts is None else facts
        request_context, plan = await self._plan_decode(request, deadline, rules)
        tokens = TokenStream(self._engine.tokenizer, plan)
        steps = self._engine.stream(plan.greedy, request_context.engine_options())
        with attributed_to_constraint(request):
            async with aclosing(steps):
                async for step in steps:
                    if isinstance(step, RequestOutput):
                        yield await self._decoded(request_context, plan, combine_outputs([step]))
                        continue
                    token = tokens.to_event(step)
                    facts.update(prompt_tokens=plan.prompt_tokens, scored_tokens=tokens.length)
                    yield token

    async def score_paths(
        self,
        serving_options: ServingOptions,
        plan: Callable[[Tokenizer, ModelInfo], PathQueries[T]],
        deadline: Deadline | None = None,
    ) -> PathScores[T]:
        """Answers to the questions about token paths that ``plan`` makes, off the event loop."""
        request_context = self._open_context(serving_options, deadline)
        made = await self._planned(request_context, serving_options, plan)
        outcome = await self._scores.score(made.queries, request_context.engine_options())
        shared = request_context.response_fields(
            "paths",
            self._engine.info,
            outcome,
            prompt_tokens=made.prompt_tokens,
            scored_tokens=made.scored_tokens,
        )
        return PathScores(made.plan, outcome.value, **shared | {"id": request_context.id})

    async def run_blocking(
        self, request: ServingOptions, work: Callable[[Tokenizer, ModelInfo], T]
    ) -> T:
        """What ``work`` makes of the model's tokenizer, off the event loop, for a request.

        Raises:
            DeadlineExceeded: the request's time runs out before it is made.
        """
        working = self._threads.run(
            Priority(request.priority), work, self._engine.tokenizer, self._engine.info
        )
        with stage("tokenize"):
            return await self.deadline(request).run_before(working)

    def deadline(self, request: ServingOptions) -> Deadline:
        """When the request's time is over."""
        return self._limits.deadline(request, self._arrived)

    @property
    def has_abandoned_threads(self) -> bool:
        """Whether a thread still works; nobody waits for it once the requests are over."""
        return self._threads.busy

    def models(self) -> ModelList:
        """What is served, once for each of its names."""
        return ModelList(data=[self._card(name) for name in self._names])

    def model(self, name: str) -> ModelCard:
        """What is served under ``name``."""
        self._check_model(name, param=None)
        return self._card(name)

    def _card(self, name: str) -> ModelCard:
        card = model_card(self._engine.info, self._limits, self._rerank)
        return card.model_copy(update={"id": name})

    def _plan_score(
        self, tokenizer: Tokenizer, info: ModelInfo, request: ScoreRequest
    ) -> tuple[ScorePlan, TopCandidates | Sequence[LogprobQuery]]:
        plan = plan_score(tokenizer, info, self._engine.check, request)
        return plan, top_search(info, plan) or plan.queries

    async def _plan_decode(
        self, request: DecodeRequest, deadline: Deadline | None, rules: TokenRules
    ) -> tuple[RequestContext, DecodePlan]:
        request_context = self._open_context(request, deadline)
        plan = await self._planned(request_context, request, plan_decode, request, rules)
        return request_context, plan

    async def _decoded(
        self,
        request_context: RequestContext,
        plan: DecodePlan,
        outcome: RequestOutput[tuple[DecodingResult | None, ...]],
    ) -> DecodeResponse:
        request_context.search_ended()
        asked = plan.request
        large = asked.lists_tokens or asked.search_tree or asked.returned > LARGE
        found = await self._render(
            request_context, large, build_decode_body, self._engine.tokenizer, plan, outcome.value
        )
        return DecodeResponse(
            sequences=found.sequences,
            certificate=found.certificate,
            boundary=None if plan.closed is None else plan.closed.boundary,
            compared=found.compared,
            search_tree=found.search_tree,
            **request_context.response_fields(
                "decode",
                self._engine.info,
                outcome,
                prompt_tokens=plan.prompt_tokens,
                scored_tokens=found.scored_tokens,
            ),
        )

    def _open_context(self, request: ServingOptions, deadline: Deadline | None) -> RequestContext:
        request_context = RequestContext(
            request, deadline or self.deadline(request), self._tenant, self._parent
        )
        if request.model is not None:
            self._check_model(request.model, param="model")
        self._limits.check(request)
        request_context.deadline.check()
        return request_context

    def _check_model(self, name: str, param: str | None) -> None:
        if name not in self._names:
            names = " and ".join(map(repr, self._names))
            verb = "is" if len(self._names) == 1 else "are"
            raise ModelNotServed(f"The model {name!r} is not served here; {names} {verb}.", param)

    async def _planned(
        self,
        request_context: RequestContext,
        request: ServingOptions,
        plan: Callable[..., T],
        *args: Any,
    ) -> T:
        """What ``plan`` makes beside the event loop, where there is room for the request."""
        tokenizer, info = self._engine.tokenizer, self._engine.info
        least = least_tokens(tokenizer, info, request)
        options, check_room = request_context.options, not self._keeps_scores
        async with self._engine.reserve(least, options, check_room=check_room):
            planning = self._threads.run(
                request_context.priority,
                *(plan, tokenizer, info, *args),
                takes_long=takes_long(request),
            )
            with stage("tokenize"):
                return await request_context.deadline.run_before(planning)

    async def _render(
        self, request_context: RequestContext, large: bool, render: Callable[..., T], *args: Any
    ) -> T:
        with stage("render"):
            if large:
                rendering = self._threads.run(request_context.priority, render, *args)
                return await request_context.deadline.run_before(rendering)
            rendered = render(*args)
            request_context.deadline.check()
            return rendered
