"""Whether a receipt's numbers are those that are computed again, to the bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.cli.verify.report import Finding
from app.schemas.receipt import Receipt, ReceiptCandidate
from model_runtime import GNMT_ALPHA, Normalization, Size, normalized_score, total

POWER_ROUNDING: Final = 1e-12
"""Relative: the power in a ``gnmt`` score is the C library's, and no two need round alike."""


@dataclass(frozen=True, slots=True)
class Unscored:
    """Why a path could not be scored again.

    Attributes:
        message: for people.
        is_at_fault: the receipt is, as its own model cannot have been asked this.
    """

    message: str
    is_at_fault: bool


Recomputed = Sequence[float] | Unscored
"""The log-probabilities of one path, or why there are none."""


def compared(
    receipt: Receipt, place: int, recomputed: Sequence[Recomputed]
) -> tuple[Finding | None, float]:
    """What is wrong with a candidate, if anything is, and the largest difference of a token.

    Args:
        receipt: well formed.
        place: of the candidate in it.
        recomputed: one for each prefix.
    """
    one = receipt.candidates[place]
    stated = (one.logprobs, *(baseline.logprobs for baseline in one.baselines))
    for found in recomputed:
        if isinstance(found, Unscored):
            words = f"cannot be scored here: {found.message}"
            return _finding(one, words, comparable=found.is_at_fault), 0.0
    known = [found for found in recomputed if not isinstance(found, Unscored)]
    largest = max(map(_largest_difference, stated, known))
    new = total(known[0])
    if largest:
        where = _where(stated, known)
        return _finding(one, where, recomputed=new, largest_difference=largest), largest
    problem = arithmetic(receipt, one)
    if problem is None:
        return None, 0.0
    return _finding(one, problem, recomputed=new, largest_difference=0.0), 0.0


def arithmetic(receipt: Receipt, one: ReceiptCandidate) -> str | None:
    """What does not follow from the receipt's own log-probabilities; None where all does."""
    if one.logprob != total(one.logprobs):
        return f"its log-probabilities add up to {total(one.logprobs)!r}, not {one.logprob!r}"
    for number, baseline in enumerate(one.baselines):
        if baseline.logprob != total(baseline.logprobs):
            found = total(baseline.logprobs)
            return f"baseline {number} adds up to {found!r}, not {baseline.logprob!r}"
    score = _score(receipt, one)
    rounding = POWER_ROUNDING if receipt.normalization == "gnmt" else 0.0
    if not math.isclose(one.score, score, rel_tol=rounding):
        return f"its {receipt.normalization} score is {score!r}, not {one.score!r}"
    return None


def _score(receipt: Receipt, one: ReceiptCandidate) -> float:
    divisor = one.divisor or 0
    return normalized_score(
        one.logprobs,
        Normalization(receipt.normalization),
        Size(len(one.logprobs), divisor, divisor),
        alpha=GNMT_ALPHA if receipt.gnmt_alpha is None else receipt.gnmt_alpha,
        baselines=[baseline.logprob for baseline in one.baselines],
    )


def _largest_difference(stated: Sequence[float], found: Sequence[float]) -> float:
    return max(abs(one - other) for one, other in zip(stated, found, strict=True))


def _where(stated: Sequence[Sequence[float]], known: Sequence[Sequence[float]]) -> str:
    """In how many log-probabilities they differ, of how many."""
    pairs = [pair for path in zip(stated, known, strict=True) for pair in zip(*path, strict=True)]
    differing = sum(one != other for one, other in pairs)
    return f"differs in {differing} of {len(pairs)} log-probabilities"


def _finding(
    one: ReceiptCandidate, problem: str, *, comparable: bool = True, **numbers: float
) -> Finding:
    return Finding(
        index=one.index, logprob=one.logprob, problem=problem, comparable=comparable, **numbers
    )
