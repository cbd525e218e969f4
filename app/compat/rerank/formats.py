"""A ranking in the shape of each API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Literal

from app.compat.rerank.request import RerankV1Request, RerankV2Request, TeiRequest
from app.compat.rerank.reranker import Ranking
from app.compat.rerank.response import (
    ApiVersion,
    BilledUnits,
    Meta,
    Rank,
    RankedDocument,
    RankWithText,
    RerankUsage,
    RerankV1Response,
    RerankV2Response,
    ReturnedDocument,
    Tokens,
)
from app.compat.rerank.scores import ScoredDocument

UNIT: Final = 100
"""Documents of one search unit."""


def v2_answer(request: RerankV2Request, ranking: Ranking) -> RerankV2Response:
    """As Cohere's second version answers."""
    cut, limit = ranking.scored.plan.cut, request.max_tokens_per_doc
    places = ", ".join(map(str, cut))
    warnings = [f"cut to max_tokens_per_doc, {limit}, are the documents {places}"] if cut else None
    return RerankV2Response(
        id=f"rerank-{ranking.scored.id}",
        results=[RankedDocument(one.index, one.score) for one in _best(ranking, request.top_n)],
        meta=_meta("2", ranking, warnings),
    )


def v1_answer(request: RerankV1Request, ranking: Ranking) -> RerankV1Response:
    """As Cohere's first version answers, and what Jina and vLLM say beside it."""
    scored = ranking.scored
    tokens = scored.plan.tokens
    return RerankV1Response(
        id=f"rerank-{scored.id}",
        model=scored.model,
        usage=RerankUsage(prompt_tokens=tokens, total_tokens=tokens),
        results=[_v1_result(request, one) for one in _best(ranking, request.top_n)],
        meta=_meta("1", ranking, None),
    )


def tei_answer(request: TeiRequest, ranking: Ranking) -> list[Rank | RankWithText]:
    """As text-embeddings-inference answers."""
    results: list[Rank | RankWithText] = []
    for one in ranking.documents:
        score = one.raw if request.raw_scores else one.score
        text = request.texts[one.index] if request.return_text else None
        results.append(
            Rank(one.index, score) if text is None else RankWithText(one.index, text, score)
        )
    return results


def tei_headers(ranking: Ranking) -> dict[str, str]:
    """What it cost; a bare list has no place for it. Times in milliseconds."""
    scored = ranking.scored
    times = scored.timings_ms
    return {
        "X-Compute-Tokens": str(scored.plan.tokens),
        "X-Total-Time": f"{times.total:.0f}",
        "X-Tokenization-Time": f"{times.tokenize:.0f}",
        "X-Queue-Time": f"{times.queue:.0f}",
        "X-Inference-Time": f"{times.model:.0f}",
        "X-Truncated-Texts": str(len(scored.plan.cut)),
    }


def _best(ranking: Ranking, count: int | None) -> Iterable[ScoredDocument]:
    return islice(ranking.documents, count or None)


def _v1_result(request: RerankV1Request, one: ScoredDocument) -> RankedDocument | ReturnedDocument:
    if not request.return_documents:
        return RankedDocument(one.index, one.score)
    document = request.documents[one.index]
    given = {"text": document} if isinstance(document, str) else document
    return ReturnedDocument(one.index, one.score, given)


def _meta(version: Literal["1", "2"], ranking: Ranking, warnings: Sequence[str] | None) -> Meta:
    scored = ranking.scored
    return Meta(
        api_version=ApiVersion(version=version),
        billed_units=BilledUnits(search_units=-(-len(ranking.documents) // UNIT)),
        tokens=Tokens(input_tokens=scored.plan.tokens),
        cached_tokens=max(0, scored.plan.needed - scored.usage.computed_tokens),
        warnings=None if warnings is None else list(warnings),
        fingerprint=scored.fingerprint,
    )
