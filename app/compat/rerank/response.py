"""Rerank as Cohere, Jina, vLLM and text-embeddings-inference write it: what is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.response import PART_CONFIG, ResponseModel

# A response may list tens of thousands of these; see ``TopLogprob``.


@dataclass(slots=True)
class RankedDocument:
    """One document's place."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    index: int
    """In the request."""
    relevance_score: float
    """0..1, more is better: ``query_likelihood`` gives exp(mean log-probability of the query's
    tokens), to be compared among the documents of one query; ``yes_no`` gives P(yes) / (P(yes) +
    P(no)), to be compared wherever the prompt is the same. A model's own ``recipe`` gives what its
    activation does: 0..1 of a sigmoid, -1..1 of tanh, any number where it has none."""


@dataclass(slots=True)
class ReturnedDocument:
    """One document's place, and the document."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    index: int
    """In the request."""
    relevance_score: float
    """As of a document that is not returned."""
    document: dict[str, str]
    """An object as it came; a text as an object with ``text``."""


@dataclass(slots=True)
class Rank:
    """One text's place."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    index: int
    """In the request."""
    score: float
    """0..1, of a ``recipe`` what its activation gives; more is better. With ``raw_scores`` in nats,
    or a recipe's logit."""


@dataclass(slots=True)
class RankWithText:
    """One text's place, and the text."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    index: int
    """In the request."""
    text: str
    """As it came."""
    score: float
    """0..1, of a ``recipe`` what its activation gives; more is better. With ``raw_scores`` in nats,
    or a recipe's logit."""


@dataclass(slots=True)
class RouterRank:
    """One document's place, as routers of vLLM and SGLang read it."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    index: int
    """In the request."""
    score: float
    """0..1, more is better."""
    document: str | None
    """The text that was ranked, with ``return_documents``; otherwise null."""
    meta_info: dict[str, list[str]] | None
    """``warnings`` where something was done to the document before it was ranked."""


class ApiVersion(ResponseModel):
    """Of the API that is spoken."""

    version: Literal["1", "2"]


class BilledUnits(ResponseModel):
    """What Cohere would bill."""

    search_units: int
    """One for each hundred documents that were begun."""


class Tokens(ResponseModel):
    """Tokens of all prompts, each counted in full."""

    input_tokens: int
    output_tokens: Literal[0] = 0


class Meta(ResponseModel):
    """About the answer."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens
    cached_tokens: int
    """Tokens that did not have to be computed: they were there, or another document's prompt begins
    with them too."""
    warnings: list[str] | None
    """What was done to the documents before they were ranked; null: nothing."""
    fingerprint: str
    """Of the model: the same one, the same scores."""


class RerankUsage(ResponseModel):
    """What the request cost, in tokens."""

    prompt_tokens: int
    total_tokens: int


def _example(version: str, **more: Any) -> ConfigDict:
    meta: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": 58, "output_tokens": 0},
        "cached_tokens": 13,
        "warnings": None,
        "fingerprint": "5b1f0c7a9d3e4f62",
    }
    name = "rerank-0d9c1e5f7a3b4826a1f0e2d4c6b8a957"
    return ConfigDict(json_schema_extra={"examples": [{"id": name, **more, "meta": meta}]})


class RerankV2Response(ResponseModel):
    """Cohere, version 2."""

    model_config = _example(
        "2",
        results=[
            {"index": 0, "relevance_score": 0.6065306597126334},
            {"index": 1, "relevance_score": 0.171},
        ],
    )

    id: str
    results: list[RankedDocument | ReturnedDocument]
    """Best first; equal ones in the request's order."""
    meta: Meta


class RerankV1Response(ResponseModel):
    """Cohere, version 1; Jina and vLLM."""

    model_config = _example(
        "1",
        object="list",
        model="smollm2-135m-instruct",
        usage={"prompt_tokens": 58, "total_tokens": 58},
        results=[
            {
                "index": 0,
                "relevance_score": 0.6065306597126334,
                "document": {"text": "Paris is the capital of France."},
            }
        ],
    )

    id: str
    object: Literal["list"] = "list"
    model: str
    usage: RerankUsage
    results: list[RankedDocument | ReturnedDocument]
    """Best first; equal ones in the request's order."""
    meta: Meta


class CohereError(BaseModel):
    """A failure, as Cohere's clients read it; Jina's read ``detail``, which /v1/rerank adds."""

    message: str
    detail: str | None = Field(None, description="The same, on /v1/rerank.")


class TeiError(BaseModel):
    """A failure, as clients of text-embeddings-inference read it."""

    error: str
    error_type: str
