"""vLLM's scoring of text pairs at POST /v1/score, under each of the names that it gives them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.compat.foreign_fields import POOLING_DEFAULTS, Neutral, Priority, UnsupportedFields
from app.compat.generative_scoring.label_schemas import MAX_REQUEST_ID_CHARS
from app.compat.rerank.request import PromptOptions
from app.schemas.bounds import MAX_DOCUMENTS
from app.schemas.request import ServingOptions, Text


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Many = Annotated[list[Text], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]
Texts = Annotated[Many, BeforeValidator(_as_list, json_schema_input_type=Text | Many)]
"""Texts; a lone one is a list of one."""


class PairRequest(UnsupportedFields, ServingOptions, PromptOptions):
    """Pairs of texts: one with each of many, or as many with as many."""

    noop_values: ClassVar[Neutral] = POOLING_DEFAULTS

    FIRST: ClassVar[str]
    SECOND: ClassVar[str]

    priority: Priority = "interactive"
    """``interactive``, ``bulk``, or an integer as vLLM has it: 0 and less, or more."""
    request_id: Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_ID_CHARS)] | None = None
    """A name for the request; comes back in ``id``."""
    user: Text | None = None
    """Accepted; without effect."""
    use_activation: Literal[True] | None = None
    """Scores are always between 0 and 1."""
    truncate_prompt_tokens: None = None
    """Refused unless null: nothing is cut."""

    @field_validator("*")
    @classmethod
    def _are_pairs(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name == cls.SECOND:
            first = info.data.get(cls.FIRST, value)
            if len(first) not in (1, len(value)):
                raise PydanticCustomError(
                    "pairs", "{name} must be one text, or as many as here", {"name": cls.FIRST}
                )
        return value


class TextPairs(PairRequest):
    """By the names ``text_1`` and ``text_2``."""

    FIRST: ClassVar[str] = "text_1"
    SECOND: ClassVar[str] = "text_2"

    text_1: Texts
    """What the others are scored for: a query, or as many as there are others."""
    text_2: Texts
    """What is scored: documents."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "text_1": "What is the capital of France?",
            "text_2": ["Paris is the capital of France.", "Bananas are yellow."],
        },
    )


class QueryPairs(PairRequest):
    """By the names ``queries`` and ``documents``."""

    FIRST: ClassVar[str] = "queries"
    SECOND: ClassVar[str] = "documents"

    queries: Texts
    """What the documents are scored for: one, or as many as there are documents."""
    documents: Texts
    """What is scored."""


class DataPairs(PairRequest):
    """By the names ``data_1`` and ``data_2``."""

    FIRST: ClassVar[str] = "data_1"
    SECOND: ClassVar[str] = "data_2"

    data_1: Texts
    """What the others are scored for: a query, or as many as there are others."""
    data_2: Texts
    """What is scored: documents."""
