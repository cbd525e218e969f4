"""The orders in which a question's options are shown, and how far its answers range over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial

from app.decisions.question import Question
from app.schemas.bounds import MAX_PERMUTED_OPTIONS
from app.schemas.debias import Debias
from model_runtime import InvalidQuery

Order = tuple[int, ...]
"""Indices into a question's options, as they are shown from top to bottom."""


@dataclass(frozen=True, slots=True)
class OrderRange:
    """How much the order of the options mattered.

    Attributes:
        count: orders in which the options were shown.
        lowest: [options] the smallest probability of each in any one order, in 0..1.
        highest: [options] the largest.
        flipped: whether no option is the most probable one, or as probable as any, in every order.
    """

    count: int
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    flipped: bool


def orders_of(question: Question, debias: Debias) -> list[Order]:
    """The orders in which its options are shown, the one that was sent first.

    Raises:
        InvalidQuery: there are too many options for every order; it names the question.
    """
    count = order_count(question, debias)
    sent = tuple(range(len(question.options)))
    if count == 1:
        return [sent]
    if question.kind == "score":
        return [sent, sent[::-1]]
    if debias == "cyclic":
        return [sent[first:] + sent[:first] for first in sent]
    return list(permutations(sent))


def order_count(question: Question, debias: Debias) -> int:
    """How many ``orders_of`` gives.

    Raises:
        InvalidQuery: as ``orders_of`` does.
    """
    options = len(question.options)
    if debias == "none" or options == 1:
        return 1
    if question.kind == "score":
        return 2
    if debias == "cyclic":
        return options
    if options > MAX_PERMUTED_OPTIONS:
        raise InvalidQuery(
            f"its {options} options are too many for debias all, which shows up to "
            f"{MAX_PERMUTED_OPTIONS} in every order; cyclic takes any number",
            question.param,
        )
    return factorial(options)


def order_range(shares: Sequence[Sequence[float]]) -> OrderRange:
    """How far the answers range.

    Args:
        shares: [orders][options] probabilities, the options always in the order as sent.
    """
    by_option = list(zip(*shares, strict=True))
    best = [max(those) for those in shares]
    steady = any(
        all(share == top for share, top in zip(those, best, strict=True)) for those in by_option
    )
    return OrderRange(
        count=len(shares),
        lowest=tuple(map(min, by_option)),
        highest=tuple(map(max, by_option)),
        flipped=not steady,
    )
