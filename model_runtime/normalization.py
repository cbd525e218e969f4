"""From token log-probs to comparable scores: pure functions over totals and counts.

With s the left-to-right float64 sum of a candidate's n scored log-probs, natural logs:

========  ======================  ========================================================
sum       s                       log P(candidate | context)
mean      s / n                   per scored token, an appended end token included
per_char  s / characters          of the candidate's own text, not of a shifted boundary's
per_byte  s / bytes               of the candidate's own text in UTF-8
========  ======================  ========================================================

A candidate that could not be scored is None wherever scores are taken as a list, and takes no
part: its rank, probability and tie group are None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

from model_runtime.errors import InvalidQuery
from model_runtime.types import total


class Normalization(StrEnum):
    """What the sum of log-probs is divided by."""

    SUM = "sum"
    MEAN = "mean"
    PER_CHAR = "per_char"
    PER_BYTE = "per_byte"


def normalized_score(
    logprobs: Sequence[float], normalization: Normalization, *, characters: int, byte_count: int
) -> float:
    """s / divisor, as the table above has it.

    Args:
        logprobs: [n] of all scored tokens.
        normalization: which divisor.
        characters: Unicode code points of the candidate's text.
        byte_count: bytes of the candidate's text.

    Raises:
        InvalidQuery: the divisor is zero.
    """
    return total(logprobs) / _divisor(len(logprobs), normalization, characters, byte_count)


def normalized_error(
    token_error: float,
    token_count: int,
    normalization: Normalization,
    *,
    characters: int,
    byte_count: int,
) -> float:
    """Numeric error of a normalized score: n x token_error / divisor.

    Per-token errors are taken to add up, as they may all have the same sign.

    Raises:
        InvalidQuery: the divisor is zero.
    """
    divisor = _divisor(token_count, normalization, characters, byte_count)
    return token_error * token_count / divisor


def perplexity(logprobs: Sequence[float]) -> float:
    """exp(-s / n); infinite where float64 cannot hold it. Needs at least one log-prob."""
    try:
        return math.exp(-total(logprobs) / len(logprobs))
    except OverflowError:
        return math.inf


def competition_ranks(scores: Sequence[float | None]) -> list[int | None]:
    """1 + the number of strictly better scores: equal scores share a rank (1, 2, 2, 4)."""
    ranks: dict[float, int] = {}
    for place, score in enumerate(sorted(_present(scores), reverse=True), start=1):
        ranks.setdefault(score, place)
    return [None if score is None else ranks[score] for score in scores]


def probabilities(scores: Sequence[float | None], temperature: float = 1.0) -> list[float | None]:
    """exp(score_i / T) / sum_j exp(score_j / T) over the candidates that have a score.

    The largest score is subtracted first, so nothing overflows, and the sum is rounded once,
    so that the result does not depend on the order of the candidates.

    Raises:
        InvalidQuery: the temperature is not a positive finite number.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InvalidQuery("temperature must be a positive number", param="temperature")
    best = max(_present(scores), default=0.0)
    weights = [None if s is None else math.exp((s - best) / temperature) for s in scores]
    mass = math.fsum(_present(weights))
    return [None if weight is None else weight / mass for weight in weights]


def tie_groups(scores: Sequence[float | None], errors: Sequence[float]) -> list[int | None]:
    """Which scores cannot be told apart, given the numeric error of each.

    In sorted order, neighbours at most error_i + error_j apart are tied, and ties chain: of
    a ~ b ~ c all three are one group, even where a and c are further apart. Equal scores are
    always tied.

    Args:
        scores: the scores, None for candidates without one.
        errors: a bound on |score - exact score| for each, not negative; ignored beside None.

    Returns:
        Group numbers from 1, best group first; None for a score that is tied with no other.
    """
    scored = [(score, index) for index, score in enumerate(scores) if score is not None]
    scored.sort(key=lambda pair: -pair[0])
    groups: list[int | None] = [None] * len(scores)
    count = 0
    for (high, better), (low, worse) in pairwise(scored):
        if high - low > errors[better] + errors[worse]:
            continue
        if groups[better] is None:
            count += 1
            groups[better] = count
        groups[worse] = groups[better]
    return groups


def prefix_of(paths: Sequence[Sequence[int] | None]) -> list[tuple[int, ...]]:
    """For each token path the indices, ascending, of the paths that it is a strict prefix of.

    Without an end token its sum is never below theirs: it is the event that contains theirs.
    """
    owners: dict[tuple[int, ...], list[int]] = {}
    for index, path in enumerate(paths):
        if path is not None:
            owners.setdefault(tuple(path), []).append(index)
    longer: dict[tuple[int, ...], list[int]] = {path: [] for path in owners}
    # In sorted order a path's extensions follow it directly; the open ones form a stack.
    shorter: list[tuple[int, ...]] = []
    for path in sorted(owners):
        while shorter and path[: len(shorter[-1])] != shorter[-1]:
            shorter.pop()
        for prefix in shorter:
            longer[prefix].extend(owners[path])
        shorter.append(path)
    return [() if path is None else tuple(sorted(longer[tuple(path)])) for path in paths]


def _divisor(
    token_count: int, normalization: Normalization, characters: int, byte_count: int
) -> int:
    divisor = {
        Normalization.SUM: 1,
        Normalization.MEAN: token_count,
        Normalization.PER_CHAR: characters,
        Normalization.PER_BYTE: byte_count,
    }[normalization]
    if divisor <= 0:
        raise InvalidQuery(f"{normalization} has nothing to divide by", param="normalization")
    return divisor


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
