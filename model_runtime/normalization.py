"""From token log-probs to comparable scores: pure functions over totals and counts.

With s the left-to-right float64 sum of a candidate's n scored log-probs, natural logs:

==========  ========================  ======================================================
sum         s                         log P(candidate | context)
mean        s / n                     per scored token, an appended end token included
per_char    s / characters            of the candidate's own text, not of a shifted boundary's
per_byte    s / bytes                 of the candidate's own text in UTF-8
gnmt        s / ((5 + n) / 6)^alpha   Wu et al., 2016, arXiv:1609.08144, equation 14
pmi         s - baseline              the baseline is s of the same ids under another context
calibrated  s - baseline              the same, its mean over several contexts
==========  ========================  ======================================================

A candidate that could not be scored is None wherever scores are taken as a list, and takes no
part: its rank, probability and tie group are None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from model_runtime.errors import InvalidQuery, NonFiniteLogits
from model_runtime.token_paths import path_order
from model_runtime.types import total

GNMT_ALPHA = 0.6
"""The exponent of ``gnmt`` where none is given."""


class Normalization(StrEnum):
    """What the sum of log-probs is divided by, or compared with."""

    SUM = "sum"
    MEAN = "mean"
    PER_CHAR = "per_char"
    PER_BYTE = "per_byte"
    GNMT = "gnmt"
    PMI = "pmi"
    CALIBRATED = "calibrated"

    @property
    def has_baseline(self) -> bool:
        """Whether the same ids under another context are subtracted."""
        return self in (Normalization.PMI, Normalization.CALIBRATED)


@dataclass(frozen=True, slots=True)
class Size:
    """What a candidate may be divided by.

    Attributes:
        tokens: scored ones, an appended end included.
        characters: Unicode code points of its text.
        byte_count: bytes of its text.
    """

    tokens: int
    characters: int
    byte_count: int


def normalized_score(
    logprobs: Sequence[float],
    normalization: Normalization,
    size: Size,
    *,
    alpha: float = GNMT_ALPHA,
    baselines: Sequence[float] = (),
) -> float:
    """The score, as the table above has it.

    Args:
        logprobs: [n] of all scored tokens.
        normalization: which row of the table.
        size: of the candidate.
        alpha: the exponent of ``gnmt``.
        baselines: sums of the same ids under other contexts; their mean is subtracted.

    Raises:
        InvalidQuery: the divisor is zero, or there is no baseline.
    """
    if normalization.has_baseline:
        return total(logprobs) - mean_baseline(baselines)
    return total(logprobs) / divisor(normalization, size, alpha)


def normalized_error(
    token_error: float, normalization: Normalization, size: Size, *, alpha: float = GNMT_ALPHA
) -> float:
    """Numeric error of a normalized score: n x token_error / divisor, twice that of a difference.

    Per-token errors are taken to add up, as they may all have the same sign. A mean of baselines
    is no more exact than each of them.

    Raises:
        InvalidQuery: the divisor is zero.
    """
    error = token_error * size.tokens
    return 2 * error if normalization.has_baseline else error / divisor(normalization, size, alpha)


def mean_baseline(baselines: Sequence[float]) -> float:
    """The mean of sums under other contexts, in nats. Raises ``InvalidQuery`` for none."""
    if not baselines:
        raise InvalidQuery("there is no baseline to subtract", param="normalization")
    return math.fsum(baselines) / len(baselines)


def off_mass(logprobs: Mapping[tuple[int, ...], float]) -> float | None:
    """1 - sum of P over distinct token paths: what is left for everything else.

    Not below 0, which rounding might make it. None where a path begins another one, as their
    events overlap.
    """
    if not are_apart(list(logprobs)):
        return None
    return max(0.0, 1.0 - math.fsum(math.exp(logprob) for logprob in logprobs.values()))


def are_apart(paths: Sequence[tuple[int, ...]]) -> bool:
    """Whether no token path equals or begins another, so that their events exclude each other."""
    # In sorted order what a path begins follows it directly.
    order = path_order(paths)
    return all(paths[j][: len(paths[i])] != paths[i] for i, j in pairwise(order))


def log_sum_exp(logprobs: Iterable[float]) -> float:
    """Log of the summed probability, rounded once, so that the order does not matter.

    -inf where there is none; a single one comes back unchanged.
    """
    present = [logprob for logprob in logprobs if logprob > -math.inf]
    if not present:
        return -math.inf
    best = max(present)
    return best + math.log(math.fsum(math.exp(logprob - best) for logprob in present))


def log_sum(logprobs: Sequence[float]) -> float:
    """``log_sum_exp`` of tokens that exclude each other, such as all end tokens; at most 0.

    Raises:
        NonFiniteLogits: all of them are zero.
    """
    found = log_sum_exp(logprobs)
    if found == -math.inf:
        raise NonFiniteLogits("the model gave the end no probability at all")
    # float32 log-probs may add up to a little more than everything.
    return min(0.0, found)


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
        raise InvalidQuery("must be a positive number", param="temperature")
    best = max(_present(scores), default=0.0)
    weights = [None if s is None else math.exp((s - best) / temperature) for s in scores]
    mass = math.fsum(_present(weights))
    return [None if weight is None else weight / mass for weight in weights]


def tie_groups(scores: Sequence[float | None], errors: Sequence[float]) -> list[int | None]:
    """Which scores cannot be told apart, given the numeric error of each.

    In sorted order, neighbours at most error_i + error_j apart are tied, and ties chain: of
    a ~ b ~ c all three are one group, even where a and c are further apart. Equal scores are
    always tied; the largest error among them is that of all, so that their order does not matter.

    Args:
        scores: the scores, None for candidates without one.
        errors: a bound on |score - exact score| for each, not negative; ignored beside None.

    Returns:
        Group numbers from 1, best group first; None for a score that is tied with no other.
    """
    scored = [(score, index) for index, score in enumerate(scores) if score is not None]
    scored.sort(key=lambda pair: -pair[0])
    largest: dict[float, float] = {}
    for score, index in scored:
        largest[score] = max(largest.get(score, 0.0), errors[index])
    groups: list[int | None] = [None] * len(scores)
    count = 0
    for (high, better), (low, worse) in pairwise(scored):
        if low != high and low + largest[low] < high - largest[high]:
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
    owners = _owners(paths)
    order = sorted(owners)
    longer: list[list[int]] = [[] for _ in order]
    for place, shorter in enumerate(_open_prefixes(order)):
        for prefix in shorter:
            longer[prefix].extend(owners[order[place]])
    found = {path: tuple(sorted(those)) for path, those in zip(order, longer, strict=True)}
    return [() if path is None else found[tuple(path)] for path in paths]


def prefix_pairs(paths: Sequence[Sequence[int] | None]) -> int:
    """How many indices ``prefix_of`` lists in all: they may be millions where paths are few."""
    owners = {path: len(those) for path, those in _owners(paths).items()}
    order = sorted(owners)
    pairs = 0
    behind: list[int] = []  # for each open prefix: how many are it or a shorter one
    for path, shorter in zip(order, _open_prefixes(order), strict=True):
        del behind[len(shorter) :]
        before = behind[-1] if behind else 0
        pairs += owners[path] * before
        behind.append(before + owners[path])
    return pairs


def _owners(paths: Sequence[Sequence[int] | None]) -> dict[tuple[int, ...], list[int]]:
    """The indices of each distinct path."""
    owners: dict[tuple[int, ...], list[int]] = {}
    for index, path in enumerate(paths):
        if path is not None:
            owners.setdefault(tuple(path), []).append(index)
    return owners


def _open_prefixes(order: Sequence[tuple[int, ...]]) -> Iterator[Sequence[int]]:
    """For each of the distinct paths, sorted, the places of those that begin it, shortest first.

    A path's extensions follow it directly, so the open ones form a stack. Its places are given, as
    long tuples are slow to hash; they are good until the next path is.
    """
    shorter: list[int] = []
    for place, path in enumerate(order):
        while shorter and path[: len(order[shorter[-1]])] != order[shorter[-1]]:
            shorter.pop()
        yield shorter
        shorter.append(place)


def divisor(normalization: Normalization, size: Size, alpha: float = GNMT_ALPHA) -> float:
    """What the sum is divided by; 1 where a baseline is subtracted instead.

    Raises:
        InvalidQuery: it is zero.
    """
    if normalization is Normalization.GNMT:
        return float(((5 + size.tokens) / 6) ** alpha)
    count = {
        Normalization.MEAN: size.tokens,
        Normalization.PER_CHAR: size.characters,
        Normalization.PER_BYTE: size.byte_count,
    }.get(normalization, 1)
    if count <= 0:
        raise InvalidQuery(f"{normalization} has nothing to divide by", param="normalization")
    return count


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
