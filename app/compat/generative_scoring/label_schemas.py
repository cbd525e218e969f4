"""Bodies of generative scoring: how likely given tokens are behind a query and an item.

vLLM answers POST /generative_scoring, SGLang POST /v1/score with nearly the same keys.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.compat.foreign_fields import Neutral, Priority, UnsupportedFields
from app.schemas.bounds import MAX_CANDIDATES, MAX_CHOSEN_IDS
from app.schemas.conditions import Schema, absent_or, any_of, given, when
from app.schemas.request import Candidate, ServingOptions, Text, TokenId
from app.schemas.response import ResponseModel

MAX_REQUEST_ID_CHARS = 256

Items = Annotated[list[Candidate], Field(min_length=1, max_length=MAX_CANDIDATES, fail_fast=True)]
_TEXTS: Final[Schema] = {"anyOf": [{"type": "string"}, {"items": {"type": "string"}}]}
_ID_LISTS: Final[Schema] = {"type": "array", "items": {"type": "array"}}
LabelIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_CHOSEN_IDS, fail_fast=True)]


class LabelRequest(ServingOptions):
    """Labels to be scored behind one query and many items."""

    query: Candidate
    """What all items have in common: text or token ids."""
    items: Items
    """Texts, or lists of token ids. One that cannot be scored fails the request, by index."""
    label_token_ids: LabelIds
    """The tokens whose probability is wanted behind query and item."""
    item_first: bool = False
    """Put each item before the query. Then only what items share is computed once."""
    parse_special: bool = True
    """Read the text of a control token, such as ``<|im_end|>``, as that token, as those APIs always
    do: their texts are chat templates. Our own; with false the words of others stay words."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        any_of(absent_or(items=_TEXTS), absent_or(items=_ID_LISTS)),
    )

    @field_validator("items")
    @classmethod
    def _are_of_one_kind(cls, items: list[Any]) -> list[Any]:
        if len({isinstance(item, str) for item in items}) > 1:
            raise PydanticCustomError("mixed_items", "Items are all text or all lists of token ids")
        return items


class GenerativeScoringRequest(UnsupportedFields, LabelRequest):
    """vLLM's body. Query and item are tokenized each by itself."""

    apply_softmax: bool = True
    """The label's share of the probability of all labels; otherwise its own, over the whole
    vocabulary."""
    add_special_tokens: bool = True
    """Put what the tokenizer's own rule puts there before a query that is text: the beginning-of-
    sequence token of most models. It comes first even where items do, and once: a text that begins
    with it gets no second."""
    priority: Priority = "interactive"
    """``interactive``, ``bulk``, or an integer as vLLM has it: 0 and less, or more."""
    request_id: Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_ID_CHARS)] | None = None
    """A name for the request; comes back in ``id``."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "query": "Is this a city in France? ",
            "items": ["Paris. Answer:", "London. Answer:"],
            "label_token_ids": [4093, 787],
        },
    )


class LabelScoreRequest(UnsupportedFields, LabelRequest):
    """SGLang's body. Texts are joined before they are tokenized."""

    noop_values: ClassVar[Neutral] = {
        "embed_override_token_id": (),
        "item_embed_overrides": (),
        "query_embed_overrides": (),
        "return_pooled_hidden_states": (False,),
        "temperature": (1,),
    }

    priority: Priority = "interactive"
    """``interactive``, ``bulk``, or an integer as SGLang has it: 0 and less, or more."""
    apply_softmax: bool = False
    """The labels' shares of the probability of all labels; otherwise their own, over the whole
    vocabulary."""

    conditions: ClassVar[tuple[Schema, ...]] = (
        when(given("query", {"type": "string"}), absent_or(items=_TEXTS)),
        when(given("query", {"type": "array"}), absent_or(items=_ID_LISTS)),
    )

    @field_validator("items", mode="before", json_schema_input_type=Text | Items)
    @classmethod
    def _one_is_a_list_of_one(cls, items: object) -> object:
        return [items] if isinstance(items, str) else items

    @field_validator("items")
    @classmethod
    def _are_of_the_querys_kind(cls, items: list[Any], info: ValidationInfo) -> list[Any]:
        if isinstance(items[0], str) != isinstance(info.data.get("query", items[0]), str):
            raise PydanticCustomError(
                "mixed_items", "Query and items are all text or all token ids"
            )
        return items

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "query": "Is this a city in France? ",
            "items": ["Paris. Answer:", "London. Answer:"],
            "label_token_ids": [4093, 787],
            "apply_softmax": True,
        },
    )


class PromptTokensDetails(ResponseModel):
    """Which of the prompts' tokens cost nothing."""

    cached_tokens: int


class ScoringUsage(ResponseModel):
    """Tokens of all prompts; nothing is generated."""

    prompt_tokens: int
    """Query and item, once for each item."""
    completion_tokens: int = 0
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


_USAGE: dict[str, JsonValue] = {
    "prompt_tokens": 11,
    "completion_tokens": 0,
    "total_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 0},
}


class ItemScore(ResponseModel):
    """One item's score."""

    index: int
    object: Literal["score"] = "score"
    score: float
    """Between 0 and 1."""


class ScoreList(ResponseModel):
    """What vLLM answers: the items in the request's order."""

    id: str
    object: Literal["list"] = "list"
    created: int
    """Unix seconds."""
    model: str
    data: list[ItemScore]
    usage: ScoringUsage

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "generative-scoring-3f6d2b8c1a9e4d57b0c2f4a68e1d7b93",
                    "object": "list",
                    "created": 1764000000,
                    "model": "smollm2-135m-instruct",
                    "data": [{"index": 0, "object": "score", "score": 0.875}],
                    "usage": _USAGE,
                }
            ]
        }
    )


class LabelScores(ResponseModel):
    """What SGLang answers."""

    scores: list[list[float]]
    """For each item the probability of each label."""
    model: str
    usage: ScoringUsage
    object: Literal["scoring"] = "scoring"

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "scores": [[0.875, 0.125]],
                    "model": "smollm2-135m-instruct",
                    "usage": _USAGE,
                    "object": "scoring",
                }
            ]
        }
    )
