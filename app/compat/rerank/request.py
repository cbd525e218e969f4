"""Rerank as Cohere, Jina, vLLM and text-embeddings-inference write it: what is asked.

Fields that none of them has, the prompt's and the treatment's, are ours and mean the same in all.
What they have and is not served here is refused by name, unless it says what happens anyway.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import Discriminator, Field, RootModel, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.compat.foreign_fields import (
    RERANK_DEFAULTS,
    ForeignRequest,
    Neutral,
    Priority,
    UnsupportedFields,
)
from app.compat.rerank.templates import Mode
from app.schemas.bounds import (
    MAX_CACHE_SALT_CHARS,
    MAX_CANDIDATES,
    MAX_DOCUMENT_FIELDS,
    MAX_DOCUMENTS,
    MAX_LABEL_CHARS,
    MAX_MODEL_NAME_CHARS,
    MAX_RANK_FIELDS,
    MAX_TEMPLATE_CHARS,
    MAX_TIMEOUT_MS,
    MAX_TOKEN_IDS,
)
from app.schemas.request import Request, ServingOptions, Text

T = TypeVar("T")

COHERE_TOKENS = 4096
"""Of a document, from Cohere's v2 on: its own default."""

_NEUTRAL: dict[str | None, tuple[object, ...]] = {
    "max_chunks_per_doc": (None, 10),
    "truncate_prompt_tokens": (None,),
}
"""Values of what is not served that ask for nothing; 10 is Cohere's own default."""

SENT_BY_ROUTERS: Final = {"return_documents", "rid", "top_k", "user"}
"""Fields that routers of vLLM and SGLang put into every request for ranks, null where the client
said nothing."""

RerankLabel = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS)]
Query = Annotated[Text, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]
Count = Annotated[int, Field(ge=1, le=MAX_CANDIDATES)]
FieldName = Annotated[str, Field(max_length=MAX_LABEL_CHARS)]
FieldNames = Annotated[list[FieldName], Field(min_length=1, max_length=MAX_RANK_FIELDS)]
Document = Text | Annotated[dict[FieldName, Text], Field(max_length=MAX_DOCUMENT_FIELDS)]
Documents = Annotated[list[Document], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]
AnyCase = Annotated[str, Field(pattern="^([Rr][Ii][Gg][Hh][Tt]|[Ll][Ee][Ff][Tt])$")]
AnyInteger = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]


class PromptOptions(Request):
    """How query and document are put to the model. Null: as the operator set it."""

    mode: Mode | None = None
    """``query_likelihood``: how probable the query is behind the document; the score is exp(mean
    log-probability of its tokens). ``yes_no``: P(yes) / (P(yes) + P(no)) of the token behind
    a prompt that asks. ``recipe``: as the model's own folder says."""
    template: Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE_CHARS)] | None = None
    """A built-in one by name (``query-likelihood``, ``qwen3-reranker``, ``plain-yes-no``), or text
    with ``{query}``, ``{document}`` and at will ``{instruction}``, other braces doubled. Its
    control tokens count as such; what is filled in stays text."""
    instruction: Annotated[str, Field(max_length=MAX_TEMPLATE_CHARS)] | None = None
    """What the template says of the task; of a ``recipe`` its prompt, empty for none."""
    labels: Annotated[list[RerankLabel], Field(min_length=2, max_length=2)] | None = None
    """Of ``yes_no`` and ``recipe``: the texts for yes and for no, each exactly one token."""

    @property
    def label_pair(self) -> tuple[str, str] | None:
        """Those for yes and no."""
        return None if self.labels is None else (self.labels[0], self.labels[1])


class CohereRequest(UnsupportedFields, PromptOptions):
    """What both versions of Cohere's request have."""

    noop_values: ClassVar[Neutral] = RERANK_DEFAULTS

    model: Annotated[str, Field(max_length=MAX_MODEL_NAME_CHARS)] | None = None
    """The served model's name, as a check."""
    query: Query
    """What is searched for."""
    documents: Documents
    """What is ranked: texts, or objects whose ``text`` counts. A character that the vocabulary
    cannot spell is left out, and ``meta.warnings`` says of which documents."""
    rank_fields: FieldNames | None = None
    """These fields of each document object count, in this order, a line each; null: ``text``."""
    return_documents: bool = False
    """Give back each document with its score, an object as it came."""
    priority: AnyInteger | Literal["interactive", "bulk"] = 0
    """0 or less: ``interactive``; more: ``bulk``."""
    timeout_ms: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)] | None = None
    """Milliseconds after which the request ends with 504; null: the server's own default."""
    cache_salt: Annotated[str, Field(max_length=MAX_CACHE_SALT_CHARS)] = ""
    """Computed tokens are shared only among requests of the same salt."""

    @property
    def serving_options(self) -> ServingOptions:
        """The same in the words of the native routes."""
        priority = self.priority
        if isinstance(priority, int):
            priority = "bulk" if priority > 0 else "interactive"
        return ServingOptions(
            model=self.model,
            priority=priority,
            timeout_ms=self.timeout_ms,
            cache_salt=self.cache_salt,
        )


class RelevantSpans(ForeignRequest, Request):
    """Which parts of a document make it relevant: not served, so only that none are wanted."""

    mode: Literal["disabled"]
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Without effect."""
    max_spans: AnyInteger | None = None
    """Without effect."""


class RerankV2Request(CohereRequest):
    """Cohere, version 2."""

    top_n: Count | None = None
    """So many of the best are returned; null: all."""
    max_tokens_per_doc: Annotated[int, Field(ge=1, le=MAX_TOKEN_IDS)] = COHERE_TOKENS
    """A longer document is cut to its first so many tokens, and ``meta.warnings`` says so."""
    relevant_spans: RelevantSpans | None = None
    """Not served: null, or a ``mode`` of ``disabled``."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "model": "smollm2-135m-instruct",
            "query": "What is the capital of France?",
            "documents": ["Paris is the capital of France.", "Bananas are yellow."],
            "top_n": 1,
        },
    )


class RerankV1Request(CohereRequest):
    """Cohere, version 1; Jina and vLLM; with ``top_k`` a router's."""

    noop_values: ClassVar[Neutral] = {"max_tokens_per_doc": (), "instruct": ()}

    top_n: Annotated[int, Field(ge=0, le=MAX_CANDIDATES)] | None = None
    """So many of the best are returned; null or 0: all."""
    top_k: Annotated[int, Field(ge=0, le=MAX_CANDIDATES)] | None = None
    """The same as routers of vLLM and SGLang write it: with it the answer is the bare list that
    they read. So it is where it is null and beside it stand ``rid``, ``user`` and
    ``return_documents``, as those routers send them; a null alone asks for nothing."""
    max_chunks_per_doc: Annotated[AnyInteger, Field(json_schema_extra={"enum": [10]})] | None = None
    """Not served: documents are never split. Null, or that API's own default, 10."""
    truncate_prompt_tokens: Annotated[AnyInteger, Field(json_schema_extra={"enum": []})] | None = (
        None
    )
    """Not served: null only. What is too long is refused by its index."""

    @property
    def is_routers(self) -> bool:
        """Whether it is a router's, which reads a bare list."""
        return self.top_k is not None or self.model_fields_set >= SENT_BY_ROUTERS

    @property
    def count(self) -> int | None:
        """So many of the best are returned; None or 0: all."""
        return self.top_k or self.top_n

    @field_validator("max_chunks_per_doc", "truncate_prompt_tokens")
    @classmethod
    def _is_not_wanted(cls, value: T, info: ValidationInfo) -> T:
        neutral = _NEUTRAL[info.field_name]
        if value not in neutral:
            raise PydanticCustomError(
                "not_served",
                "This is not served; leave it away, or at {neutral}",
                {"neutral": " or ".join("null" if one is None else str(one) for one in neutral)},
            )
        return value

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "query": "What is the capital of France?",
            "documents": ["Paris is the capital of France.", {"text": "Bananas are yellow."}],
            "return_documents": True,
        },
    )


class TeiRequest(UnsupportedFields, ServingOptions, PromptOptions):
    """text-embeddings-inference."""

    priority: Priority = "interactive"
    """``interactive``, ``bulk``, or an integer: 0 and less, or more."""

    query: Query
    """What is searched for."""
    texts: Texts
    """What is ranked. A character that the vocabulary cannot spell is left out, and
    ``X-Unspelled-Texts`` lists such texts by index."""
    top_n: Annotated[int, Field(ge=0, le=MAX_CANDIDATES)] | None = None
    """So many of the best are returned; null or 0: all. Not that server's own: clients of several
    servers send it."""
    truncate: bool = False
    """Cut a text so that its prompt fits the model; without, one that does not is refused."""
    truncation_direction: Literal["right", "left"] = "right"
    """Which end of the text is cut off; in any case of letters."""
    raw_scores: bool = False
    """The sum of the query's log-probabilities, the log-odds of yes, or a recipe's logit, instead
    of a score."""
    return_text: bool = False
    """Give back each text with its score."""

    @field_validator("truncation_direction", mode="before", json_schema_input_type=AnyCase)
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "query": "What is the capital of France?",
            "texts": ["Paris is the capital of France.", "Bananas are yellow."],
        },
    )


def _family(body: object) -> str:
    texts = body.get("texts") if isinstance(body, dict) else None
    return "tei" if texts is not None or isinstance(body, TeiRequest) else "cohere"


class AnyRerankRequest(
    RootModel[
        Annotated[
            Annotated[TeiRequest, Tag("tei")] | Annotated[RerankV1Request, Tag("cohere")],
            Discriminator(_family),
        ]
    ]
):
    """With ``texts`` it is text-embeddings-inference's, else that of /v1/rerank."""
