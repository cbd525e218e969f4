"""A ranking in the shape of each API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Literal

from app.compat.rerank.request import (
    CohereRequest,
    RerankV1Request,
    RerankV2Request,
    TeiRequest,
)
from app.compat.rerank.rerank_query import document_texts
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
    RouterRank,
    Tokens,
)
from app.compat.rerank.scores import ScoredDocument

UNIT: Final = 100
"""Documents of one search unit."""
MAX_HEADER_RUNS: Final = 128
"""Runs of indices in a header: 2 KiB, where proxies pass on 4 in all."""
_UNSPELLED: Final = "characters that the vocabulary cannot spell are left out"


def v2_answer(request: RerankV2Request, ranking: Ranking) -> RerankV2Response:
    """As Cohere's second version answers."""
    cut, limit = ranking.scored.plan.cut, request.max_tokens_per_doc
    places = ", ".join(map(str, cut))
    warnings = [f"cut to max_tokens_per_doc, {limit}, are the documents {places}"] if cut else []
    return RerankV2Response(
        id=f"rerank-{ranking.scored.id}",
        results=[_result(request, one) for one in _best(ranking, request.top_n)],
        meta=_meta("2", ranking, [*_spelling_warnings(ranking), *warnings]),
    )


def v1_answer(request: RerankV1Request, ranking: Ranking) -> RerankV1Response:
    """As Cohere's first version answers, and what Jina and vLLM say beside it."""
    scored = ranking.scored
    tokens = scored.plan.tokens
    return RerankV1Response(
        id=f"rerank-{scored.id}",
        model=scored.model,
        usage=RerankUsage(prompt_tokens=tokens, total_tokens=tokens),
        results=[_result(request, one) for one in _best(ranking, request.count)],
        meta=_meta("1", ranking, _spelling_warnings(ranking)),
    )


def router_answer(request: RerankV1Request, ranking: Ranking) -> list[RouterRank]:
    """The bare list that routers of vLLM and SGLang read from what stands behind them."""
    texts = document_texts(request.documents, request.rank_fields)
    unspelled = set(ranking.scored.plan.unspelled)
    return [
        RouterRank(
            one.index,
            one.score,
            texts[one.index] if request.return_documents else None,
            {"warnings": [_UNSPELLED]} if one.index in unspelled else None,
        )
        for one in _best(ranking, request.count)
    ]


def tei_answer(request: TeiRequest, ranking: Ranking) -> list[Rank | RankWithText]:
    """As text-embeddings-inference answers."""
    results: list[Rank | RankWithText] = []
    for one in _best(ranking, request.top_n):
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
    unspelled = scored.plan.unspelled
    return {
        "X-Compute-Tokens": str(scored.plan.tokens),
        "X-Total-Time": f"{times.total:.0f}",
        "X-Tokenization-Time": f"{times.tokenize:.0f}",
        "X-Queue-Time": f"{times.queue:.0f}",
        "X-Inference-Time": f"{times.model:.0f}",
        "X-Truncated-Texts": str(len(scored.plan.cut)),
        **({"X-Unspelled-Texts": _listed(unspelled)} if unspelled else {}),
    }


def _listed(indices: Sequence[int]) -> str:
    """Ascending indices as runs, ``0-3, 7``; ``...`` stands for what a header has no room for."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    shown = texts[:MAX_HEADER_RUNS]
    return ", ".join(shown if len(shown) == len(texts) else [*shown, "..."])


def _best(ranking: Ranking, count: int | None) -> Iterable[ScoredDocument]:
    return islice(ranking.documents, count or None)


def _spelling_warnings(ranking: Ranking) -> list[str]:
    places = ", ".join(map(str, ranking.scored.plan.unspelled))
    return [f"{_UNSPELLED}: documents {places}"] if places else []


def _result(request: CohereRequest, one: ScoredDocument) -> RankedDocument | ReturnedDocument:
    if not request.return_documents:
        return RankedDocument(one.index, one.score)
    document = request.documents[one.index]
    given = {"text": document} if isinstance(document, str) else document
    return ReturnedDocument(one.index, one.score, given)


def _meta(version: Literal["1", "2"], ranking: Ranking, warnings: Sequence[str]) -> Meta:
    scored = ranking.scored
    return Meta(
        api_version=ApiVersion(version=version),
        billed_units=BilledUnits(search_units=-(-len(ranking.documents) // UNIT)),
        tokens=Tokens(input_tokens=scored.plan.tokens),
        cached_tokens=max(0, scored.plan.needed - scored.usage.computed_tokens),
        warnings=list(warnings) or None,
        fingerprint=scored.fingerprint,
    )
