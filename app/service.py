"""Text to token ids, token ids to the engine, its answers to text. Knows no HTTP, no tensors.

Every answer takes the same way; only tokenizing and rendering leave the event loop::

    request ── plan ──> queries or a search ── engine ──> answers ── render ──> response
               (thread)                       (awaited)           (thread, if large)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from app.candidate_scores import candidate_scores
from app.decoding import decoded_sequences, plan_decode
from app.distribution import plan_next_token, read_distribution
from app.errors import ModelNotServed
from app.limits import Limits
from app.logs import note
from app.model_cards import model_card
from app.schemas.decode import DecodeRequest, DecodeResponse
from app.schemas.models import ModelCard, ModelList
from app.schemas.next_token import NextTokenRequest, NextTokenResponse
from app.schemas.request import ContextRequest
from app.schemas.response import Usage
from app.schemas.score import ScoreRequest, ScoreResponse
from app.scoring import plan_score
from app.visit import Visit
from model_runtime import Engine, Outcome

T = TypeVar("T")

MAX_THREADS = 4
"""Threads that tokenize and render; beyond the cores they would only take turns."""

LARGE = 64
"""Entries beyond which an answer takes longer to put together than to change threads."""


class ScoringService:
    """The native API's verbs over one engine.

    Every verb raises ``InvalidQuery`` kinds for what the caller did wrong, naming the field,
    ``ModelNotServed`` for another model's name, and whatever the engine fails with.

    Args:
        engine: loaded and started.
        limits: the operator's bounds.
    """

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self._engine = engine
        self._limits = limits or Limits()
        self._tenant = ""
        self._threads = CapacityLimiter(min(MAX_THREADS, os.cpu_count() or 1))

    def for_tenant(self, tenant: str) -> ScoringService:
        """The same service; its requests share computation with those of this tenant alone.

        The empty name is a tenant like any other, and what every request has by default.
        """
        service = copy(self)
        service._tenant = tenant
        return service

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """log P(candidate | context) for each candidate, in the request's order."""
        engine, visit = self._engine, self._admit(request)
        plan = await self._off_loop(
            plan_score, engine.tokenizer, engine.info, engine.check, request
        )
        outcome = await engine.score(plan.queries, visit.after_tokenizing())
        large = request.lists_tokens or len(request.candidates) > LARGE
        results = await self._render(
            large, candidate_scores, engine.tokenizer, engine.info, plan, outcome.value
        )
        scored = sum(result.token_count or 0 for result in results)
        return ScoreResponse(
            results=results,
            boundary=plan.boundary,
            **self._shared("score", visit, outcome, plan.joined.context_tokens, scored),
        )

    async def next_token(self, request: NextTokenRequest) -> NextTokenResponse:
        """The asked part of the distribution of the token after the context."""
        engine, visit = self._engine, self._admit(request)
        plan = await self._off_loop(
            plan_next_token,
            engine.tokenizer,
            engine.info,
            self._limits.max_top_logprobs,
            request,
        )
        outcome = await engine.next_token(plan.query, visit.after_tokenizing())
        large = plan.query.floor is not None or plan.query.top_k > LARGE
        found = await self._render(large, read_distribution, engine.tokenizer, plan, outcome.value)
        return NextTokenResponse(
            tokens=found.tokens,
            chosen=found.chosen,
            entropy=found.entropy,
            remaining_probability=found.remaining_probability,
            **self._shared("next", visit, outcome, plan.prompt_tokens, 1),
        )

    async def decode(self, request: DecodeRequest) -> DecodeResponse:
        """The continuations that the search finds, best first."""
        engine, visit = self._engine, self._admit(request)
        plan = await self._off_loop(plan_decode, engine.tokenizer, engine.info, request)
        outcome = await engine.decode(plan.search, visit.after_tokenizing())
        sequences = await self._render(
            request.lists_tokens, decoded_sequences, engine.tokenizer, plan, outcome.value
        )
        generated = sum(len(sequence.token_ids) for sequence in sequences)
        return DecodeResponse(
            sequences=sequences,
            **self._shared("decode", visit, outcome, plan.prompt_tokens, generated),
        )

    def models(self) -> ModelList:
        """What is served."""
        return ModelList(data=[model_card(self._engine.info, self._limits)])

    def model(self, name: str) -> ModelCard:
        """What is served under ``name``."""
        self._check_model(name, param=None)
        return model_card(self._engine.info, self._limits)

    def _admit(self, request: ContextRequest) -> Visit:
        visit = Visit(request, self._limits.default_timeout_ms, self._tenant)
        if request.model is not None:
            self._check_model(request.model, param="model")
        self._limits.check(request)
        return visit

    def _check_model(self, name: str, param: str | None) -> None:
        if name != self._engine.info.name:
            raise ModelNotServed(
                f"The model {name!r} is not served here; {self._engine.info.name!r} is.", param
            )

    async def _off_loop(self, work: Callable[..., T], *args: Any) -> T:
        return await to_thread.run_sync(work, *args, limiter=self._threads)

    async def _render(self, large: bool, render: Callable[..., T], *args: Any) -> T:
        return await self._off_loop(render, *args) if large else render(*args)

    def _shared(
        self,
        kind: str,
        visit: Visit,
        outcome: Outcome[Any],
        prompt_tokens: int,
        scored_tokens: int,
    ) -> dict[str, Any]:
        """The fields of ``Reply``; what it cost goes into the access log as well."""
        info = self._engine.info
        usage = Usage(
            prompt_tokens=prompt_tokens,
            scored_tokens=scored_tokens,
            cached_tokens=outcome.cached_tokens,
            computed_tokens=outcome.computed_tokens,
        )
        note(**usage.model_dump())
        return {
            "id": f"{kind}-{visit.id}",
            "created": visit.created,
            "model": info.name,
            "fingerprint": info.fingerprint,
            "numeric_error": info.numeric_error and info.numeric_error[0],
            "usage": usage,
            "timings_ms": visit.timings(outcome),
        }
