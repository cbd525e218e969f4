"""Reported numbers beside those that a recipe makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.audit.diagnosis.precision import half_units
from app.audit.diagnosis.recipe import Number, Recipe, as_probability
from app.audit.diagnosis.rows import PathRows
from app.schemas.reported import Reported

TOKEN_ERRORS = 4.0
"""Two computations err, each by up to twice what the largest error on the sample was."""

UNKNOWN_ERROR = (1e-4, 2e-5)
"""Largest and root mean square error of a token's log-probability, in nats, where the server has
not measured them."""

BF16_NOISE = 2 * 2.0**16
"""What bfloat16 may move a token's log-probability by, in root mean square errors of float32, which
rounds 2^16 times as finely. Of twelve models the movement was 10,000 to 25,000 of them as a root
mean square itself, and seldom four times that. Tokens move independently of each other: n of them
by the square root of n times as much."""

BF16_USUAL = (0.04, 0.8)
"""What the root mean square of such movements may be, in 2^16 errors of float32: 0.15 to 0.38 of
twelve models, and more or less than that by chance and in small models."""

BF16_BIAS = 4.0
"""By so many of its standard errors their mean may differ from 0: rounding goes either way."""

BF16_NUMBERS = 8
"""So many numbers are needed to tell bfloat16 from what merely comes near."""

LEAST = 1e-300
"""A tolerance at least: a number may have more decimals than a float can tell."""

KEPT = 1_024
"""Recipes for tokens whose numbers are kept."""

SUMMING = 2.0**-22
"""Relative: what adding up in float32 may cost."""


@dataclass(frozen=True, slots=True)
class ReportedNumber:
    """One of the reported numbers.

    Attributes:
        candidate: index of its candidate.
        token: place in its list; None for a candidate's only number.
        value: as reported.
        half_unit: half a unit of its last digit.
    """

    candidate: int
    token: int | None
    value: float
    half_unit: float


@dataclass(frozen=True, slots=True)
class Fit:
    """How near a recipe comes.

    Attributes:
        excess: the largest difference in tolerances; up to 1 it fits.
        difference: of the worst number, in its own unit.
        tolerance: of that number.
        worst: that number.
        odds: natural logarithms of how probable it is for each number to be met by chance.
        values: what the recipe makes of each number.
        is_noise: what is left is spread as rounding spreads it; True where none is allowed for.
    """

    excess: float
    difference: float
    tolerance: float
    worst: ReportedNumber
    odds: tuple[float, ...]
    values: tuple[float, ...]
    is_noise: bool = True

    @property
    def fits(self) -> bool:
        """No number is farther away than its tolerance."""
        return self.excess <= 1.0 and self.is_noise

    def log_chance(self, parameters: int) -> float:
        """Logarithm of how probable a fit by chance is; so many numbers went into estimates."""
        return sum(sorted(self.odds, reverse=True)[parameters:]) if parameters else sum(self.odds)


class Comparison:
    """Compares recipes with what was reported.

    Args:
        reported: totals, probabilities or log-probabilities of tokens.
        scored: indices of the candidates that could be scored.
        numeric_error: largest and root mean square error of a token's log-probability here, if
            they are known.

    Attributes:
        numbers: that were reported.
        is_noise_known: the error was measured, so that bfloat16's can be told from it.
    """

    def __init__(
        self,
        reported: Reported,
        scored: Sequence[int],
        numeric_error: tuple[float, float] | None,
    ) -> None:
        self._kind = reported.kind
        largest, usual = numeric_error or UNKNOWN_ERROR
        self._token_error = TOKEN_ERRORS * largest
        self._noise = BF16_NOISE * usual
        self._distance = math.inf
        self.is_noise_known = numeric_error is not None
        self._lengths: dict[int, int] = {}
        self._kept: dict[object, _Kept] = {}
        found: list[tuple[int, int | None, float]] = []
        if self._kind == "token_logprobs":
            for index, tokens in enumerate(reported.token_logprobs or ()):
                if tokens is not None and index in scored:
                    self._lengths[index] = len(tokens)
                    found += [(index, t, v) for t, v in enumerate(tokens) if v is not None]
        else:
            given = reported.totals or reported.probabilities or ()
            found = [(i, None, v) for i, v in enumerate(given) if v is not None and i in scored]
        units = half_units([value for _, _, value in found], reported.decimals)
        self.numbers = [ReportedNumber(*one, unit) for one, unit in zip(found, units, strict=True)]
        values = [one.value for one in self.numbers]
        self._spread = max(
            max(values, default=0.0) - min(values, default=0.0),
            math.fsum(map(abs, values)) / max(1, len(values)),
        )

    def centre(self, right: Fit) -> None:
        """Take random numbers to be about as far from the right ones as the reported are: whatever
        is small beside the numbers themselves is near those of many mistakes."""
        gaps = [one.value - made for one, made in zip(self.numbers, right.values, strict=True)]
        self._distance = 2 * math.sqrt(3 * math.fsum(gap * gap for gap in gaps) / len(gaps))

    def fit(
        self,
        recipe: Recipe,
        paths: Sequence[PathRows | None],
        *,
        noisy: bool = False,
        centred: bool = True,
    ) -> Fit | None:
        """How near the recipe comes; None where it makes no such numbers.

        Args:
            recipe: what makes numbers.
            paths: of the recipe's input.
            noisy: whether the other system computed in bfloat16.
            centred: whether random numbers are taken to be around the right ones, once they are
                known, or anywhere in the range of the reported.
        """
        made = self._made(recipe, paths, independent=noisy)
        if made is None or not self.numbers:
            return None
        error = self._noise if noisy else self._token_error
        worst: tuple[float, float, float, ReportedNumber] | None = None
        odds, left = [], []
        for one in self.numbers:
            number = made[(one.candidate, one.token)]
            tolerance = one.half_unit + number.error * error + abs(number.value) * SUMMING
            tolerance = max(tolerance, LEAST)
            difference = abs(one.value - number.value)
            if not math.isfinite(difference):
                return None
            excess = difference / tolerance
            if worst is None or excess > worst[0]:
                worst = excess, difference, tolerance, one
            odds.append(self._odds(one, tolerance, self._distance if centred else math.inf))
            left.append((one.value - number.value) / tolerance)
        if worst is None:
            return None
        values = tuple(made[(one.candidate, one.token)].value for one in self.numbers)
        return Fit(*worst, tuple(odds), values, not noisy or _is_noise(left))

    def _odds(self, one: ReportedNumber, tolerance: float, distance: float) -> float:
        """Logarithm of the part of the range of such numbers that is within the tolerance."""
        spread = 2 * one.value if self._kind == "probabilities" else self._spread
        spread = min(spread, distance)
        return math.log(min(1.0, 2 * tolerance / spread)) if spread > 2 * tolerance else 0.0

    def _made(
        self, recipe: Recipe, paths: Sequence[PathRows | None], *, independent: bool
    ) -> dict[tuple[int, int | None], Number] | None:
        found: dict[tuple[int, int | None], Number] = {}
        tokens = self._tokens(recipe, paths)
        if self._kind == "token_logprobs":
            for index, length in self._lengths.items():
                numbers = tokens[index]
                if numbers is None or len(numbers) != length:
                    return None
                found |= {(index, at): recipe.in_unit(one) for at, one in enumerate(numbers)}
            return found
        scores = recipe.scores(paths, tokens, independent=independent)
        for one in self.numbers:
            number = scores[one.candidate]
            if number is None:
                return None
            is_log = self._kind == "totals"
            found[(one.candidate, None)] = number if is_log else as_probability(number)
        return found

    def _tokens(
        self, recipe: Recipe, paths: Sequence[PathRows | None]
    ) -> list[list[Number] | None]:
        """Of every candidate; many recipes differ only in what is made of them."""
        key = (recipe.token_key, id(paths))
        kept = self._kept.get(key)
        if kept is not None:
            return kept.tokens
        tokens = [None if path is None else recipe.tokens(path) for path in paths]
        if len(self._kept) < KEPT:
            self._kept[key] = _Kept(paths, tokens)
        return tokens


def _is_noise(left: Sequence[float]) -> bool:
    """Whether what is left of numbers, in tolerances, is what bfloat16 leaves: about as large, and
    on either side. Of one or two numbers nothing is known of that."""
    if len(left) <= 2:
        return True
    count = len(left)
    mean = math.fsum(left) / count
    usual = math.sqrt(math.fsum(one * one for one in left) / count)
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in left) / (count - 1))
    low, high = (one * 2.0**16 / BF16_NOISE for one in BF16_USUAL)
    return low <= usual <= high and abs(mean) <= BF16_BIAS * spread / math.sqrt(count)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Numbers, and the paths that they are of: while these are held no others have their id."""

    paths: Sequence[PathRows | None]
    tokens: list[list[Number] | None]
