"""Questions about token paths, and their answers, for whoever speaks another wire shape.

A plan is made from text by the family that read the request; the service asks the engine::

    request ── plan ──> queries ── CachedScorer ──> answers ── the family ──> response
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.schemas.response import Timings, Usage
from model_runtime import LogprobQuery, QueryResult

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PathQueries(Generic[T]):
    """What to ask.

    Attributes:
        queries: answered in this order.
        plan: whatever the answers are to be read with.
        prompt_tokens: tokens of all contexts, for the usage.
        scored_tokens: tokens whose log-probabilities the answer is made of.
    """

    queries: Sequence[LogprobQuery]
    plan: T
    prompt_tokens: int
    scored_tokens: int


@dataclass(frozen=True, slots=True)
class PathScores(Generic[T]):
    """What was answered; the other fields are those of ``BaseResponse``.

    Attributes:
        plan: as given.
        answers: one for each query, in order; what failed is an error in its place.
        id: 32 hex digits, to which a family adds its own prefix.
    """

    plan: T
    answers: Sequence[QueryResult]
    id: str
    created: int
    model: str
    fingerprint: str
    numeric_error: float | None
    usage: Usage
    timings_ms: Timings
