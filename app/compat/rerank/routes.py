"""POST /v2/rerank, /v1/rerank and /rerank: documents ordered by how well they go with a query."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Final, cast

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from app.compat.rerank.config import RerankDefaults
from app.compat.rerank.formats import (
    router_answer,
    tei_answer,
    tei_headers,
    v1_answer,
    v2_answer,
)
from app.compat.rerank.request import AnyRerankRequest, RerankV1Request, RerankV2Request, TeiRequest
from app.compat.rerank.rerank_query import RerankQuery
from app.compat.rerank.reranker import Ranking, Reranker
from app.compat.rerank.response import (
    CohereError,
    Rank,
    RankWithText,
    RerankV1Response,
    RerankV2Response,
    RouterRank,
    TeiError,
)
from app.dependencies import FactsDependency, ServiceDependency
from app.http.json_body import QueuedRoute
from app.http.json_response import PIECE, WORK_FAILURES, Failures, json_reply
from app.requests.limits import Limits

Ranks = list[Rank | RankWithText]


def _failures(model: type[BaseModel]) -> Failures:
    return {status: {**row, "model": model} for status, row in WORK_FAILURES.items()}


_TEI_FAILURES: Final[Failures] = {
    **{status: row for status, row in _failures(TeiError).items() if status not in (500, 504)},
    424: {"model": TeiError, "description": "The model failed, or the request's time ran out"},
}

router = APIRouter(tags=["rerank"], route_class=QueuedRoute)


async def get_reranker(
    request: Request, service: ServiceDependency, facts: FactsDependency
) -> Reranker:
    """What ranks, as the operator set it up."""
    state = request.app.state
    return Reranker(service, cast(RerankDefaults, state.rerank), cast(Limits, state.limits), facts)


RerankerDependency = Annotated[Reranker, Depends(get_reranker)]


@router.post(
    "/v2/rerank",
    response_model=RerankV2Response,
    summary="Rank documents: Cohere, version 2",
    responses=_failures(CohereError),
)
async def rerank_v2(request: RerankV2Request, reranker: RerankerDependency) -> Response:
    """Order documents by how well they answer a query, best first.

    A document longer than ``max_tokens_per_doc`` is cut to its beginning, as this API has it, and
    ``meta.warnings`` names it. One whose prompt does not fit the model is refused by its index,
    and all others with it.
    """
    question = RerankQuery(
        [request.query],
        request.documents,
        "documents",
        rank_fields=request.rank_fields,
        max_tokens=request.max_tokens_per_doc,
        leaves_out=True,
    )
    answer = partial(v2_answer, request)
    serving_options = request.serving_options
    ranking = await reranker.rank(serving_options, request, question, answer)
    return await json_reply(ranking, reranker.deadline(serving_options))


@router.post(
    "/v1/rerank",
    response_model=RerankV1Response | list[RouterRank],
    summary="Rank documents: Cohere, version 1; Jina; vLLM",
    responses=_failures(CohereError),
)
async def rerank_v1(request: RerankV1Request, reranker: RerankerDependency) -> Response:
    """Order documents by how well they answer a query, best first. Nothing is cut: a document whose
    prompt does not fit the model is refused by its index, and all others with it.

    With ``top_k``, as routers of vLLM and SGLang write it, the answer is the bare list that they
    read; null asks for nothing, unless all that those routers send stands beside it.
    """
    return await _v1_reply(request, reranker)


@router.post(
    "/rerank",
    response_model=Ranks | RerankV1Response | list[RouterRank],
    summary="Rank texts: text-embeddings-inference; or as /v1/rerank",
    responses=_TEI_FAILURES,
)
async def rerank(body: AnyRerankRequest, reranker: RerankerDependency) -> Response:
    """With ``texts``: the bare list of text-embeddings-inference, best first. A text whose prompt
    does not fit the model is refused by its index, and all others with it; with ``truncate`` so
    much of it is cut as is needed, and ``X-Truncated-Texts`` counts such texts.

    Without ``texts``: as /v1/rerank.
    """
    request = body.root
    if isinstance(request, RerankV1Request):
        return await _v1_reply(request, reranker)
    return await _tei_reply(request, reranker)


async def _v1_reply(request: RerankV1Request, reranker: Reranker) -> Response:
    question = RerankQuery(
        [request.query],
        request.documents,
        "documents",
        rank_fields=request.rank_fields,
        leaves_out=True,
    )
    serving_options = request.serving_options
    if request.is_routers:
        content = await reranker.rank(
            serving_options,
            request,
            question,
            lambda ranking: _list_json(router_answer(request, ranking)),
        )
        return Response(content, media_type="application/json")
    answer = partial(v1_answer, request)
    ranking = await reranker.rank(serving_options, request, question, answer)
    return await json_reply(ranking, reranker.deadline(serving_options))


async def _tei_reply(request: TeiRequest, reranker: Reranker) -> Response:
    fit = request.truncation_direction if request.truncate else None
    question = RerankQuery(
        [request.query], request.texts, "texts", truncate_side=fit, leaves_out=True
    )

    def answer(ranking: Ranking) -> tuple[bytes, dict[str, str]]:
        return _list_json(tei_answer(request, ranking)), tei_headers(ranking)

    content, headers = await reranker.rank(
        request, request, question, answer, by_raw=request.raw_scores
    )
    return Response(content, headers=headers, media_type="application/json")


def _list_json(ranks: Sequence[Rank | RankWithText | RouterRank]) -> bytes:
    """A list as JSON; no piece of it keeps the interpreter's lock for long."""
    pieces = (to_json(ranks[i : i + PIECE])[1:-1] for i in range(0, len(ranks), PIECE))
    return b"[" + b",".join(pieces) + b"]"
