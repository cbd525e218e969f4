"""Rerank, second half: the model's answers to scores, best first.

=================  ==============================  =======================
mode               score, in 0..1                  raw
=================  ==============================  =======================
query_likelihood   exp(mean log P(query token))    sum of log P
yes_no             P(yes) / (P(yes) + P(no))       log P(yes) - log P(no)
=================  ==============================  =======================

More is better. A score depends on query, document and prompt alone: ``yes_no`` scores can be
compared across requests of the same prompt. ``query_likelihood`` scores can be compared among the
documents of one query; of different queries one may be more probable than another behind any text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.compat.rerank.templates import Mode
from model_runtime import (
    ChainruleError,
    InvalidQuery,
    LogprobResult,
    NonFiniteLogits,
    QueryResult,
    total,
)


@dataclass(frozen=True, slots=True)
class ScoredDocument:
    """One document.

    Attributes:
        index: in the request.
        score: in 0..1.
        raw: see above, in nats.
        order: what the score is a function of; never rounded to the same as another's.
    """

    index: int
    score: float
    raw: float
    order: float


def read_ranking(
    mode: Mode, field: str, answers: Sequence[QueryResult], *, by_raw: bool = False
) -> list[ScoredDocument]:
    """All documents, best first, equal ones in their own order.

    Args:
        mode: what was asked.
        field: the documents' name on the wire.
        answers: one for each document.
        by_raw: order by the raw score. A query of other tokens behind one document than behind
            another may have another place by its sum than by its mean.

    Raises:
        ChainruleError: a document could not be scored; it is named where it is at fault.
    """
    ranked = [_read(mode, f"{field}.{index}", index, one) for index, one in enumerate(answers)]
    return sorted(ranked, key=lambda one: -(one.raw if by_raw else one.order))


def _read(mode: Mode, param: str, index: int, answer: QueryResult) -> ScoredDocument:
    if isinstance(answer, InvalidQuery):
        raise type(answer)(f"{param}: {answer}", param) from answer
    if isinstance(answer, ChainruleError):
        raise answer
    if mode == "yes_no":
        return _yes_no(index, answer)
    raw = total(answer.logprobs)
    mean = raw / len(answer.logprobs)
    return ScoredDocument(index, math.exp(min(mean, 0.0)), raw, mean)


def _yes_no(index: int, answer: LogprobResult) -> ScoredDocument:
    yes, no = answer.target_logprobs
    odds = yes - no
    if not math.isfinite(odds):
        raise NonFiniteLogits("a label has no probability at all")
    # Neither form overflows where it is used.
    rest = math.exp(-abs(odds))
    score = 1 / (1 + rest) if odds >= 0 else rest / (1 + rest)
    return ScoredDocument(index, score, odds, odds)
