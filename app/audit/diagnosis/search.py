"""Which mistakes fit: each alone, then two at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from app.audit.diagnosis.comparison import BF16_NUMBERS, Comparison, Fit
from app.audit.diagnosis.mistakes import Continuous, Mistake, goes_with
from app.audit.diagnosis.recipe import Recipe
from app.audit.diagnosis.rows import SPAN, TEMPERATURES, PathRows
from app.requests.worker_threads import check_wanted

VALLEYS = 3
"""Best temperatures of all at which rows were asked that are looked at more closely."""

GOLDEN = (math.sqrt(5) - 1) / 2
STEPS = 60
"""Divisions of an interval by that; less than a float's last digit is left."""

HOPELESS_AFTER = 8
"""Of them, before an interval is given up in which nothing can fit."""

NUMBER = re.compile(r"\d+")
NEAR_ONE = 0.005
"""A temperature that is nearer to 1 than that is none that anybody sets."""

MAX_ESTIMATED_TOKENS = 128
"""Scored tokens up to which a temperature is estimated together with another mistake."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What mistakes make of the candidates, beside what was reported.

    Attributes:
        mistakes: none, one or two.
        fit: how near they come.
        estimate: the value of what was estimated or chosen among several.
        estimate_range: the values that fit as well.
        is_noisy: bfloat16 is one of the mistakes.
        parameters: values that were fitted.
        log_chance: logarithm of how many of all that were tried like this fit by chance.
        varies: with another number in place of the estimate it makes other numbers.
    """

    mistakes: tuple[Mistake, ...]
    fit: Fit
    estimate: float | None = None
    estimate_range: tuple[float, float] | None = None
    is_noisy: bool = False
    parameters: int = 0
    log_chance: float = 0.0
    varies: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the mistakes, and what was done but for the numbers in it."""
        return tuple(f"{one.name} {NUMBER.sub('', one.about)}" for one in self.mistakes)


class Search:
    """Tries mistakes on one report.

    Args:
        comparison: with what was reported.
        right: the recipe without a mistake.
        inputs: rows of each input; the first is the request's own.

    Attributes:
        numbers: that were reported.
        tokens: scored ones of all candidates.
        tried: recipes so far.
    """

    def __init__(
        self,
        comparison: Comparison,
        right: Recipe,
        inputs: Sequence[tuple[PathRows | None, ...]],
    ) -> None:
        self._comparison = comparison
        self._right = right
        self.inputs = list(inputs)
        self.numbers = comparison.numbers
        self.tokens = sum(one.length - one.start for one in self.inputs[0] if one is not None)
        self.tried = 0

    def alone(self, mistakes: Iterable[Mistake]) -> list[Finding]:
        """Each mistake by itself, best first; none that makes no such numbers."""
        return self._found((one,) for one in mistakes if one.continuous != "among_temperature")

    def pairs(
        self, mistakes: Sequence[Mistake], given: Sequence[tuple[Mistake, ...]] = ()
    ) -> list[Finding]:
        """Every two that can be made at once, and those that are given: two of one input."""
        return self._found((*self._pairs(mistakes), *given))

    def noisy(self, mistakes: Sequence[Mistake]) -> list[Finding]:
        """bfloat16, alone and, of many numbers, with each mistake for which nothing is fitted;
        nothing where this server's own error is not known."""
        if not self._comparison.is_noise_known:
            return []
        fixed = [(one,) for one in mistakes if not one.parameters]
        if len(self.numbers) < BF16_NUMBERS:
            fixed = []
        return [*self._found([()], is_noisy=True), *self._found(fixed, is_noisy=True)]

    def right(self) -> Finding | None:
        """The comparison without a mistake."""
        found = self._finding((), is_noisy=False)
        if found is not None:
            self._comparison.centre(found.fit)
        return found

    def _pairs(self, mistakes: Sequence[Mistake]) -> Iterator[tuple[Mistake, ...]]:
        for place, one in enumerate(mistakes):
            for other in mistakes[place + 1 :]:
                needs_among = "among_temperature" in (one.continuous, other.continuous)
                has_among = "among" in one.fields | other.fields
                if goes_with(one, other) and (has_among or not needs_among):
                    yield one, other

    def _found(
        self, tried: Iterable[tuple[Mistake, ...]], *, is_noisy: bool = False
    ) -> list[Finding]:
        findings: list[Finding] = []
        chances: dict[int, list[float]] = {}
        for mistakes in tried:
            check_wanted()
            found = self._finding(mistakes, is_noisy=is_noisy)
            if found is not None and not _is_no_mistake(found):
                findings.append(found)
                chance = found.fit.log_chance(found.parameters)
                chances.setdefault(found.parameters, []).append(chance)
        total = {count: _log_sum(logs) for count, logs in chances.items()}
        # What needs nothing fitted is tried first, so to say: it does not pay for the others.
        sums = {n: _log_sum([total[m] for m in total if m <= n]) for n in total}
        whole = [replace(one, log_chance=sums[one.parameters]) for one in findings]
        return sorted(_merged(whole), key=_rank)

    def _finding(self, mistakes: tuple[Mistake, ...], *, is_noisy: bool) -> Finding | None:
        recipe = self._right
        for one in mistakes:
            recipe = replace(recipe, **one.changes)
        paths = self.inputs[recipe.source]
        continuous = next((one.continuous for one in mistakes if one.continuous), None)
        parameters = sum(one.parameters for one in mistakes)
        self.tried += 1

        def fit(made: Recipe) -> Fit | None:
            is_right = not mistakes
            return self._comparison.fit(made, paths, noisy=is_noisy, centred=not is_right)

        if continuous is not None:
            return self._estimated(mistakes, recipe, continuous, parameters, fit)
        found = fit(recipe)
        if found is None:
            return None
        estimate = next((one.estimate for one in mistakes if one.estimate is not None), None)
        return Finding(mistakes, found, estimate, None, is_noisy, parameters)

    def _estimated(
        self,
        mistakes: tuple[Mistake, ...],
        recipe: Recipe,
        field: Continuous,
        parameters: int,
        fit: Callable[[Recipe], Fit | None],
    ) -> Finding | None:
        if len(self.numbers) <= parameters:
            return None
        if len(mistakes) > 1 and self.tokens > MAX_ESTIMATED_TOKENS:
            return None

        def at(log_temperature: float) -> Fit | None:
            temperature = math.exp(log_temperature)
            if field == "temperature":
                return fit(replace(recipe, temperature=temperature))
            return fit(replace(recipe, among_temperature=temperature))

        best = minimum(at)
        if best is None:
            return None
        place, found = best
        estimated = math.exp(place)
        span = _span(at, place) if found.fits else None
        return Finding(mistakes, found, estimated, span, False, parameters)


def _is_no_mistake(one: Finding) -> bool:
    """Whether the temperature that was estimated is about 1, or may as well be."""
    span = one.estimate_range
    is_temperature = any(mistake.continuous for mistake in one.mistakes)
    return is_temperature and span is not None and span[0] - NEAR_ONE <= 1.0 <= span[1] + NEAR_ONE


def minimum(at: Callable[[float], Fit | None]) -> tuple[float, Fit] | None:
    """The logarithm of a temperature that comes nearest, and how near; None where none can be."""
    trials = [math.log(temperature) for temperature in TEMPERATURES]
    low, high, step = trials[0], trials[-1], trials[1] - trials[0]
    fits = [(at(trial), trial) for trial in trials]
    tried = [(found.excess, trial) for found, trial in fits if found is not None]
    if len(tried) < len(trials):
        return None
    valleys = [
        tried[place]
        for place in range(len(tried))
        if tried[place] <= min(tried[max(0, place - 1) : place + 2])
    ]
    best: tuple[float, Fit] | None = None
    for _, middle in sorted(valleys)[:VALLEYS]:
        place = _golden(at, max(low, middle - step), min(high, middle + step))
        found = at(place)
        if found is not None and (best is None or found.excess < best[1].excess):
            best = place, found
    return best


def _golden(at: Callable[[float], Fit | None], low: float, high: float) -> float:
    """Where an excess that falls and then rises is least."""

    def excess(place: float) -> float:
        found = at(place)
        return math.inf if found is None else found.excess

    first, last = (low, excess(low)), (high, excess(high))
    inner = [(x, excess(x)) for x in (high - GOLDEN * (high - low), low + GOLDEN * (high - low))]
    for step in range(STEPS):
        left, right = inner
        if step >= HOPELESS_AFTER and _is_hopeless((first, left, right, last)):
            break
        if left[1] <= right[1]:
            last = right
            place = last[0] - GOLDEN * (last[0] - first[0])
            inner = [(place, excess(place)), left]
        else:
            first = left
            place = first[0] + GOLDEN * (last[0] - first[0])
            inner = [right, (place, excess(place))]
    return min(inner, key=lambda one: one[1])[0]


def _is_hopeless(points: Sequence[tuple[float, float]]) -> bool:
    """Whether nothing between the first and the last point fits, if no slope is steeper there than
    the steepest that they show."""
    (low, _), *_, (high, _) = points
    nearest = min(excess for _, excess in points)
    slopes = [abs(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points) if b[0] > a[0]]
    return not slopes or nearest - max(slopes) * (high - low) > 2.0


def _span(at: Callable[[float], Fit | None], place: float) -> tuple[float, float]:
    """The least and the largest temperature around one that fits."""
    ends = []
    for limit in (-math.log(SPAN), math.log(SPAN)):
        inside, outside = place, limit
        for _ in range(STEPS // 2):
            middle = (inside + outside) / 2
            found = at(middle)
            if found is not None and found.fits:
                inside = middle
            else:
                outside = middle
        ends.append(math.exp(inside))
    return ends[0], ends[1]


def _merged(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Of those that differ in a number that was tried the best, with all numbers that fit."""
    kinds: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        kinds.setdefault(one.names, []).append(one)
    for same in kinds.values():
        best = min(same, key=lambda one: one.fit.excess)
        fitting = [one.estimate for one in same if one.fit.fits and one.estimate is not None]
        if best.estimate is not None and best.estimate_range is None and fitting:
            best = replace(best, estimate_range=(min(fitting), max(fitting)))
        yield replace(best, varies=any(one.fit.values != best.fit.values for one in same))


def _rank(one: Finding) -> tuple[bool, float, float]:
    """What fits first: what needs least fitted, then what comes nearest."""
    return (not one.fit.fits, one.parameters if one.fit.fits else 0.0, one.fit.excess)


def _log_sum(logs: Sequence[float]) -> float:
    best = max(logs)
    return best + math.log(math.fsum(math.exp(one - best) for one in logs))
