"""An order of candidates beside those that recipes make. It tells less than numbers do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from app.audit.diagnosis.comparison import TOKEN_ERRORS, UNKNOWN_ERROR
from app.audit.diagnosis.mistakes import Mistake
from app.audit.diagnosis.recipe import Number, Recipe
from app.audit.diagnosis.rows import PathRows
from app.requests.worker_threads import check_wanted


@dataclass(frozen=True, slots=True)
class OrderFit:
    """How a recipe's scores stand to the reported order.

    Attributes:
        mistakes: none or one.
        contradiction: the nats by which a candidate beats one that was put before it, at most; 0
            where none does.
        tolerance: what that may come to by numeric error.
        candidate: the one that was put too far back.
        order: by the recipe's scores, best first.
        tau: Kendall's, of the two orders.
    """

    mistakes: tuple[Mistake, ...]
    contradiction: float
    tolerance: float
    candidate: int
    order: tuple[int, ...]
    tau: float

    @property
    def fits(self) -> bool:
        """Nothing contradicts it."""
        return self.contradiction <= self.tolerance


def order_fits(
    order: Sequence[int],
    right: Recipe,
    mistakes: Sequence[Mistake],
    inputs: Sequence[Sequence[PathRows | None]],
    numeric_error: tuple[float, float] | None,
) -> list[OrderFit]:
    """The right recipe first, then each mistake for which nothing has to be fitted.

    Args:
        order: indices of candidates that could be scored, best first.
        right: the recipe without a mistake.
        mistakes: that apply.
        inputs: rows of each input.
        numeric_error: as a comparison has it.
    """
    error = TOKEN_ERRORS * (numeric_error or UNKNOWN_ERROR)[0]
    tried: list[tuple[Mistake, ...]] = [(), *((one,) for one in mistakes if not one.parameters)]
    found = []
    for one in tried:
        check_wanted()
        recipe = right
        for mistake in one:
            recipe = replace(recipe, **mistake.changes)
        paths = inputs[recipe.source]
        tokens = [None if path is None else recipe.tokens(path) for path in paths]
        scores = recipe.scores(paths, tokens)
        numbers = [scores[index] for index in order]
        if all(number is not None for number in numbers):
            known = {i: n for i, n in zip(order, numbers, strict=True) if n is not None}
            found.append(_fit(one, order, known, error))
    return found


def log_chance(fits: Sequence[OrderFit]) -> float:
    """Logarithm of how many of the orders that were made a random order equals, about."""
    places = len(fits[0].order)
    return math.log(len({one.order for one in fits})) - math.lgamma(places + 1)


def _fit(
    mistakes: tuple[Mistake, ...],
    order: Sequence[int],
    scores: dict[int, Number],
    error: float,
) -> OrderFit:
    worst, agreeing = (0.0, error, order[-1]), 0
    for before, after in combinations(order, 2):
        ahead = scores[after].value - scores[before].value
        agreeing += 1 if ahead <= 0 else -1
        tolerance = error * (scores[after].error + scores[before].error)
        if ahead - tolerance > worst[0] - worst[1]:
            worst = ahead, tolerance, after
    pairs = len(order) * (len(order) - 1) // 2
    made = tuple(sorted(order, key=lambda index: -scores[index].value))
    return OrderFit(mistakes, worst[0], worst[1], worst[2], made, agreeing / pairs)
