"""Documents ranked by the service, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from app.compat.rerank.config import RerankDefaults
from app.compat.rerank.plan import RerankPlan, plan_rerank
from app.compat.rerank.request import PromptOptions
from app.compat.rerank.rerank_query import RerankQuery
from app.compat.rerank.scores import ScoredDocument, read_ranking
from app.http.json_response import PIECE
from app.requests.deadline import Deadline
from app.requests.limits import Limits
from app.schemas.request import ServingOptions
from app.scoring.token_paths import PathScores
from app.service import ScoringService
from app.telemetry.request_facts import Facts
from model_runtime import InvalidQuery

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranking:
    """What came of it.

    Attributes:
        scored: what was asked, and what it cost.
        documents: all of them, best first.
    """

    scored: PathScores[RerankPlan]
    documents: Sequence[ScoredDocument]


class Reranker:
    """Ranks what a request asks for.

    Args:
        service: of the request.
        defaults: the operator's choices.
        limits: the operator's bounds.
        facts: what the access log is told of the request.
    """

    def __init__(
        self, service: ScoringService, defaults: RerankDefaults, limits: Limits, facts: Facts
    ) -> None:
        self._facts = facts
        self._service = service
        self._defaults = defaults
        self._limits = limits

    def deadline(self, serving_options: ServingOptions) -> Deadline:
        """When the request's time is over."""
        return self._service.deadline(serving_options)

    async def rank(
        self,
        serving_options: ServingOptions,
        options: PromptOptions,
        question: RerankQuery,
        answer: Callable[[Ranking], T],
        *,
        by_raw: bool = False,
    ) -> T:
        """What ``answer`` makes of the ranking; beside the event loop where that takes long.

        Raises:
            ChainruleError: a document cannot be ranked, or the request cannot be answered.
        """
        count, limit = len(question.documents), self._limits.max_candidates
        if count > limit:
            field = question.field
            raise InvalidQuery(f"{count} is more than this server allows, {limit}", field)
        prompt = self._defaults.prompt(options)
        plan = partial(plan_rerank, prompt, question)
        scored = await self._service.score_paths(serving_options, plan)
        self._facts.update(scored.usage.model_dump())

        def read() -> T:
            meaning = scored.plan
            ranked = read_ranking(
                meaning.mode,
                meaning.field,
                scored.answers,
                activation=meaning.activation,
                by_raw=by_raw,
            )
            return answer(Ranking(scored, ranked))

        if count > PIECE:
            return await self._service.run_blocking(serving_options, lambda *_: read())
        return read()
