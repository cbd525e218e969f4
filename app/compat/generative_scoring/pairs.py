"""Pairs of texts to relevance: what POST /v1/score answers to vLLM's pooling keys.

A causal model scores a pair as it does for /v1/rerank, under the same prompts and settings. Here
the scores stay in the request's order, and every pair may have a query of its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

from fastapi import Request

from app.compat.generative_scoring.label_routes import check_count, scoring_usage
from app.compat.generative_scoring.label_schemas import ItemScore, ScoreList
from app.compat.generative_scoring.pair_schemas import PairRequest
from app.compat.rerank.config import RerankDefaults, RerankPrompt
from app.compat.rerank.plan import RerankPlan, plan_rerank
from app.compat.rerank.rerank_query import RerankQuery
from app.compat.rerank.scores import read_ranking
from app.scoring.token_paths import PathQueries, PathScores
from app.service import ScoringService
from app.telemetry.request_facts import facts_of
from model_runtime import ModelInfo, Tokenizer


async def pair_scores(request: PairRequest, service: ScoringService, http: Request) -> ScoreList:
    """vLLM's answer: a score for each pair, as rerank gives it.

    Args:
        request: the pairs.
        service: answers.
        http: of the app, whose state has the operator's choices.

    Raises:
        InvalidQuery: a setting or a text is at fault, named by ``param``.
    """
    question = RerankQuery(
        getattr(request, request.FIRST),
        getattr(request, request.SECOND),
        request.SECOND,
        query_field=request.FIRST,
    )
    check_count(http, request.SECOND, len(question.documents))
    prompt = cast(RerankDefaults, http.app.state.rerank).prompt(request)
    found = await service.score_paths(request, partial(_plan, prompt, question))
    facts_of(http.scope).update(found.usage.model_dump())
    return await service.run_blocking(request, lambda *_: _score_list(request, prompt, found))


def _plan(
    prompt: RerankPrompt,
    question: RerankQuery,
    tokenizer: Tokenizer,
    info: ModelInfo,
) -> PathQueries[RerankPlan]:
    plan = plan_rerank(prompt, question, tokenizer, info)
    # That API counts the queries, too.
    return replace(plan, prompt_tokens=plan.plan.tokens)


def _score_list(
    request: PairRequest, prompt: RerankPrompt, found: PathScores[RerankPlan]
) -> ScoreList:
    activation = found.plan.activation
    ranked = read_ranking(prompt.mode, request.SECOND, found.answers, activation=activation)
    name = request.request_id or found.id
    return ScoreList(
        id=f"score-{name}",
        created=found.created,
        model=found.model,
        data=[
            ItemScore(index=one.index, score=one.score)
            for one in sorted(ranked, key=lambda one: one.index)
        ],
        usage=scoring_usage(found.usage, found.plan.needed),
    )
