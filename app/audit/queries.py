"""The questions of one audit, each as a request that anybody could send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from uuid import uuid4

from app.audit.evidence import Row
from app.audit.tokenization import Path
from app.requests.limits import Limits
from app.schemas.audit import AuditRequest
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import DecodeResponse
from app.schemas.next_token import NextTokenRequest
from app.schemas.request import ContextRequest, Message
from app.schemas.response import BaseResponse, Usage
from app.schemas.score import ScoreRequest
from app.schemas.score_response import BoundaryReport, CandidateScore, ScoreResponse
from app.service import ScoringService
from model_runtime import (
    Engine,
    LogprobQuery,
    LogprobResult,
    ModelInfo,
    Priority,
    RequestOptions,
    Tokenizer,
)

T = TypeVar("T")
R = TypeVar("R", bound=ContextRequest)
B = TypeVar("B", bound=BaseResponse)

AT_ONCE = 16
"""Questions of one audit that wait together, at most."""

TOKENS_AT_ONCE = 16_384
"""Tokens of their paths, which stand in the queue while they wait."""

ALTERNATIVES = 2
"""Most probable tokens to ask for: one of them is not the token itself."""


class AuditQueries:
    """Asks the service on behalf of one audit.

    Every question but the first has a cache salt that nobody else has, so that nothing which was
    computed for the scores answers for them.

    Args:
        service: as the request's tenant has it.
        engine: the same service's.
        limits: the operator's bounds.
        request: what is audited.

    Attributes:
        deadline: of the audit, and of all its questions.
        spent: what each question has cost.
    """

    def __init__(
        self, service: ScoringService, engine: Engine, limits: Limits, request: AuditRequest
    ) -> None:
        self._service = service
        self._engine = engine
        self._request = request
        self._alternatives = min(ALTERNATIVES, limits.max_top_logprobs, engine.info.vocab_size)
        self._nonce = uuid4().hex
        self.deadline = service.deadline(request)
        self._turns = asyncio.Semaphore(1)
        self.spent: list[Usage] = []

    def expect_paths(self, tokens: int) -> None:
        """Let as many questions wait together as paths of so many tokens allow."""
        self._turns = asyncio.Semaphore(max(1, min(AT_ONCE, TOKENS_AT_ONCE // tokens)))

    async def use_tokenizer(self, work: Callable[[Tokenizer, ModelInfo], T]) -> T:
        """What ``work`` makes of the model's tokenizer, off the event loop."""
        return await self._service.use_tokenizer(self._request, work)

    async def scores(self) -> ScoreResponse:
        """The answer that is audited: what /v1/score says, tokens listed."""
        request = self._request
        asked = self._like(
            ScoreRequest,
            context=_wire(request.context),
            candidates=request.candidates,
            add_bos=request.add_bos,
            prefix_token_id=request.prefix_token_id,
            boundary=request.boundary,
            start_token=request.start_token,
            append_eos=request.append_eos,
            token_logprobs=True,
            top_logprobs=self._alternatives,
            cache_salt=request.cache_salt,
        )
        return self._billed(await self._service.score(asked, self.deadline))

    async def score_alone(self, index: int, boundary: BoundaryReport) -> CandidateScore:
        """One candidate as the only one of its request, met and begun as in ``boundary``."""
        request = self._request
        asked = self._like(
            ScoreRequest,
            context=_wire(request.context),
            candidates=[request.candidates[index]],
            add_bos=request.add_bos,
            prefix_token_id=request.prefix_token_id,
            boundary=boundary.policy,
            start_token=boundary.start_token,
            append_eos=request.append_eos,
            cache_salt=f"{self._nonce}-again",
        )
        async with self._turns:
            return self._billed(await self._service.score(asked, self.deadline)).results[0]

    async def next_token(self, prefix: Path, ids: Iterable[int], salt: str) -> Row:
        """The distribution behind one prefix; shares computation with those of the same salt."""
        asked = self._like(
            NextTokenRequest,
            context=list(prefix),
            add_bos=False,
            top_k=0,
            token_ids=sorted(ids),
            cache_salt=f"{self._nonce}-{salt}",
        )
        async with self._turns:
            return Row.of(self._billed(await self._service.next_token(asked, self.deadline)))

    async def full_distribution(self, prefix: Path) -> LogprobResult:
        """The same with every token listed; no route does that, so the engine is asked."""
        everything = self._engine.info.vocab_size
        query = LogprobQuery(prefix, len(prefix), (), everything, summary=True)
        priority, salt = Priority(self._request.priority), f"audit/{self._nonce}-full"
        async with self._turns:
            self.deadline.check()
            options = RequestOptions(priority, self.deadline.at, salt)
            outcome = await self._engine.next_token(query, options)
        self.spent.append(
            Usage(
                prompt_tokens=len(prefix),
                scored_tokens=1,
                cached_tokens=outcome.cached_tokens,
                computed_tokens=outcome.computed_tokens,
                reused_scores=outcome.reused_scores,
            )
        )
        return outcome.value

    async def decoded(self, prefix: Path, max_tokens: int) -> DecodeResponse:
        """Greedy, beam and exact search behind ``prefix``."""
        request = self._request
        room = self._engine.info.max_model_len - len(prefix)
        asked = self._like(
            DecodeRequest,
            context=list(prefix),
            add_bos=False,
            compare=["greedy", "beam", "exact"],
            max_tokens=min(request.max_tokens or max_tokens, room),
            num_beams=request.beams,
            max_expansions=request.expansions,
            token_logprobs=True,
            cache_salt=f"{self._nonce}-again",
        )
        async with self._turns:
            # A search that runs out of time says what it has found; the rest needs time as well.
            return self._billed(await self._service.decode(asked, self.deadline.halfway()))

    def _like(self, kind: type[R], **fields: Any) -> R:
        """A request of another kind that is treated as this one."""
        return kind(model=self._request.model, priority=self._request.priority, **fields)

    def _billed(self, reply: B) -> B:
        self.spent.append(reply.usage)
        return reply


def _wire(context: str | list[int] | list[Message]) -> object:
    """A context as a body has it."""
    if isinstance(context, str):
        return context
    return [one.model_dump() if isinstance(one, Message) else one for one in context]
