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
    """

    excess: float
    difference: float
    tolerance: float
    worst: ReportedNumber
    odds: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def fits(self) -> bool:
        """No number is farther away than its tolerance."""
        return self.excess <= 1.0

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

    def fit(
        self, recipe: Recipe, paths: Sequence[PathRows | None], *, noisy: bool = False
    ) -> Fit | None:
        """How near the recipe comes; None where it makes no such numbers.

        Args:
            recipe: what makes numbers.
            paths: of the recipe's input.
            noisy: whether the other system computed in bfloat16.
        """
        made = self._made(recipe, paths, independent=noisy)
        if made is None or not self.numbers:
            return None
        error = self._noise if noisy else self._token_error
        worst: tuple[float, float, float, ReportedNumber] | None = None
        odds = []
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
            odds.append(self._odds(one, tolerance))
        if worst is None:
            return None
        values = tuple(made[(one.candidate, one.token)].value for one in self.numbers)
        return Fit(*worst, tuple(odds), values)

    def _odds(self, one: ReportedNumber, tolerance: float) -> float:
        """Logarithm of the part of the range of such numbers that is within the tolerance."""
        spread = 2 * one.value if self._kind == "probabilities" else self._spread
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


@dataclass(frozen=True, slots=True)
class _Kept:
    """Numbers, and the paths that they are of: while these are held no others have their id."""

    paths: Sequence[PathRows | None]
    tokens: list[list[Number] | None]
