"""Pairs of texts to relevance: what POST /v1/score answers to vLLM's pooling keys.

A causal model scores a pair as it does for /v1/rerank, under the same prompts and settings. Here
the scores stay in the request's order, and every pair may have a query of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from fastapi import Request

from app.compat.rerank.defaults import RerankDefaults, RerankPrompt
from app.compat.rerank.plan import RerankPlan, RerankQuestion, plan_rerank
from app.compat.rerank.scores import read_ranking
from app.compat.scoring.labels import check_count, scoring_usage
from app.compat.scoring.labels_wire import ItemScore, ScoreList
from app.compat.scoring.pairs_wire import PairRequest
from app.schemas.bounds import MAX_RERANK_BYTES
from app.scored_paths import PathPlan, ScoredPaths
from app.service import ScoringService
from model_runtime import InvalidQuery, LogprobQuery, ModelInfo, Tokenizer

Pairs = Sequence[tuple[str, str]]


async def pair_scores(request: PairRequest, service: ScoringService, http: Request) -> ScoreList:
    """vLLM's answer: a score between 0 and 1 for each pair.

    Args:
        request: the pairs.
        service: answers.
        http: of the app, whose state has the operator's choices.

    Raises:
        InvalidQuery: a setting or a text is at fault, named by ``param``.
    """
    pairs = request.pairs
    check_count(http, request.SECOND, len(pairs))
    prompt = cast(RerankDefaults, http.app.state.rerank).prompt(request)
    _check_size(prompt, pairs, request.SECOND)
    plan = partial(_plan, prompt, request, pairs)
    found = await service.score_paths(request, plan)
    return await service.use_tokenizer(lambda *_: _score_list(request, prompt, found))


def _plan(
    prompt: RerankPrompt,
    request: PairRequest,
    pairs: Pairs,
    tokenizer: Tokenizer,
    info: ModelInfo,
) -> PathPlan[None]:
    """One query for each pair, in order; those with the same first text are planned together."""
    places: dict[str, list[int]] = {}
    for index, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(index)
    queries: dict[int, LogprobQuery] = {}
    tokens = scored = 0
    for query, those in places.items():
        question = RerankQuestion(query, [pairs[index][1] for index in those], request.SECOND)
        try:
            plan: PathPlan[RerankPlan] = plan_rerank(tokenizer, info, prompt, question)
        except InvalidQuery as error:
            raise _located(error, request, those) from error
        queries |= zip(those, plan.queries, strict=True)
        tokens += plan.meaning.tokens
        scored += plan.scored_tokens
    return PathPlan([queries[index] for index in range(len(pairs))], None, tokens, scored)


def _located(error: InvalidQuery, request: PairRequest, those: Sequence[int]) -> InvalidQuery:
    """The same error, about the field of this request where the plan's own has another index."""
    param = error.param or ""
    name, _, index = param.partition(".")
    if name == request.SECOND:
        place = f"{name}.{those[int(index)]}"
    elif name == "query":
        # A lone first text is paired with all; it is the whole field.
        place = request.FIRST if len(getattr(request, request.FIRST)) == 1 else ""
        place = place or f"{request.FIRST}.{those[0]}"
    else:
        return error
    return type(error)(f"{place}: {str(error).removeprefix(f'{param}: ')}", place)


def _check_size(prompt: RerankPrompt, pairs: Pairs, field: str) -> None:
    around = sum(len(piece.encode()) for piece in (*prompt.template.pieces, prompt.instruction))
    size = sum(len(query.encode()) + len(text.encode()) + around for query, text in pairs)
    if size > MAX_RERANK_BYTES:
        raise InvalidQuery(
            f"{field}: with the prompts around them the pairs are {size} bytes; a request may have "
            f"{MAX_RERANK_BYTES}",
            field,
        )


def _score_list(request: PairRequest, prompt: RerankPrompt, found: ScoredPaths[None]) -> ScoreList:
    ranked = read_ranking(prompt.mode, request.SECOND, found.answers)
    name = request.request_id or found.id
    return ScoreList(
        id=f"score-{name}",
        created=found.created,
        model=found.model,
        data=[
            ItemScore(index=one.index, score=one.score)
            for one in sorted(ranked, key=lambda one: one.index)
        ],
        usage=scoring_usage(found.usage),
    )
