"""Rerank, second half: the model's answers to scores, best first.

=================  ==============================  =======================
mode               score                           raw
=================  ==============================  =======================
query_likelihood   exp(mean log P(query token))    sum of log P
yes_no             P(yes) / (P(yes) + P(no))       log P(yes) - log P(no)
recipe             its activation of the raw one   logit(true) - logit(false),
                                                   or logit(true) alone
=================  ==============================  =======================

A score is in 0..1, that of a recipe in the range of its activation: 0..1, -1..1, or any number.
More is better. A score depends on query, document and prompt alone: ``yes_no`` scores can be
compared across requests of the same prompt, and so can those of a ``recipe``, as far as the model
was trained for that. ``query_likelihood`` scores can be compared among the documents of one query;
of different queries one may be more probable than another behind any text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from app.compat.rerank.activation import Activation, activated, sigmoid
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
        score: see above.
        raw: see above; in nats, a logit alone in the model's own unit.
        order: what the score is a function of; never rounded to the same as another's.
    """

    index: int
    score: float
    raw: float
    order: float


def read_ranking(
    mode: Mode,
    field: str,
    answers: Sequence[QueryResult],
    *,
    activation: Activation = "sigmoid",
    by_raw: bool = False,
) -> list[ScoredDocument]:
    """All documents, best first, equal ones in their own order.

    Args:
        mode: what was asked.
        field: the documents' name on the wire.
        answers: one for each document.
        activation: of the mode ``recipe``.
        by_raw: order by the raw score. A query of other tokens behind one document than behind
            another may have another place by its sum than by its mean.

    Raises:
        ChainruleError: a document could not be scored; it is named where it is at fault.
    """
    read = _reader(mode, activation)
    ranked = [_read(read, f"{field}.{index}", index, one) for index, one in enumerate(answers)]
    return sorted(ranked, key=lambda one: -(one.raw if by_raw else one.order))


_Reader = Callable[[int, LogprobResult], ScoredDocument]


def _reader(mode: Mode, activation: Activation) -> _Reader:
    if mode == "query_likelihood":
        return _likelihood
    score = sigmoid if mode == "yes_no" else partial(activated, activation)
    return partial(_labelled, score)


def _read(read: _Reader, param: str, index: int, answer: QueryResult) -> ScoredDocument:
    if isinstance(answer, InvalidQuery):
        raise type(answer)(f"{param}: {answer}", param) from answer
    if isinstance(answer, ChainruleError):
        raise answer
    return read(index, answer)


def _likelihood(index: int, answer: LogprobResult) -> ScoredDocument:
    raw = total(answer.logprobs)
    mean = raw / len(answer.logprobs)
    return ScoredDocument(index, math.exp(min(mean, 0.0)), raw, mean)


def _labelled(score: Callable[[float], float], index: int, answer: LogprobResult) -> ScoredDocument:
    """Of two labels the difference, the same in log-probs as in logits; of one the logit."""
    if answer.target_logits:
        (raw,) = answer.target_logits
    else:
        yes, no = answer.target_logprobs
        raw = yes - no
    if not math.isfinite(raw):
        raise NonFiniteLogits("a label has no probability at all")
    return ScoredDocument(index, score(raw), raw, raw)
