"""What the findings come to, in the answer's words."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import get_args

from app.audit.diagnosis.comparison import BF16_NUMBERS
from app.audit.diagnosis.mistakes import Mistake
from app.audit.diagnosis.order import OrderFit, log_chance
from app.audit.diagnosis.search import Finding
from app.audit.wording import count_of
from app.schemas.diagnosis import (
    Diagnosis,
    Explanation,
    FittingMistakes,
    MistakeName,
    Untried,
    Verdict,
)
from app.schemas.reported import Claim

SHOWN = 8
"""Explanations of an answer at most."""

CHANCE = 0.05
"""Above it, what fits would fit random numbers too easily to be believed."""

WORSE = 5.0
"""By so many tolerances numbers have to be wrong before something is estimated of them: whatever
has a value to be fitted comes nearer than what has none."""

SAME = 1e-9
"""Relative: numbers as near as that are the same."""

NOISE = "the model was computed in bfloat16: differences are as large as that makes them"


def number_diagnosis(
    right: Finding | None,
    alone: Sequence[Finding],
    together: Sequence[Finding],
    *,
    numbers: int,
    tried: int,
    unaffected: Sequence[MistakeName],
    untried: Sequence[Untried],
) -> Diagnosis:
    """The answer about reported numbers.

    Args:
        right: the comparison without a mistake; None where the lists have other lengths.
        alone: each mistake by itself, best first.
        together: two at once, and bfloat16.
        numbers: that were compared.
        tried: recipes that were computed.
        unaffected: mistakes that change none of the numbers.
        untried: what was not looked for.
    """
    others = [one for one in alone if right is None or not _is_same(one, right)]
    fitting = [one for one in others if one.fit.fits]
    nearest = sorted(others, key=lambda one: one.fit.difference)
    verdict: Verdict
    if right is not None and right.fit.fits:
        is_credible = right.fit.log_chance(0) <= math.log(CHANCE)
        verdict, shown, nearest = "agree" if is_credible else "undetermined", fitting, []
    else:
        if not fitting:
            fitting = _simplest([one for one in together if one.fit.fits])
        credible = [one for one in fitting if _is_credible(one, right, numbers)]
        shown = credible or fitting
        verdict = "explained" if credible else "undetermined" if shown else "none"
        nearest = [] if shown else nearest
    explanations = [explained(one) for one in shown[:SHOWN]]
    closest = [explained(one) for one in nearest[:SHOWN]]
    return Diagnosis(
        verdict=verdict,
        summary=_near(verdict, right, shown)
        or _summary(verdict, explanations, closest, len(shown), numbers),
        numbers=numbers,
        tried=tried,
        explanations=explanations,
        also_fitting=_in_short([explained(one) for one in fitting], explanations),
        closest=closest,
        as_reported=None if right is None else explained(right),
        unaffected=list(unaffected),
        untried=list(untried),
    )


def unaffected_by(
    right: Finding | None,
    alone: Sequence[Finding],
    applying: Sequence[Mistake],
    unchanged: Collection[MistakeName],
    untried: Sequence[Untried],
) -> list[MistakeName]:
    """Mistakes that make the same numbers as none, in all ways in which they can be made.

    Args:
        right: the comparison without a mistake.
        alone: each mistake by itself.
        applying: mistakes that were to be tried.
        unchanged: those that leave what is fed and what is computed as it is.
        untried: what was not looked for.
    """
    if right is None:
        return []
    made = {mistake.name for one in alone for mistake in one.mistakes}
    changing = {
        mistake.name
        for one in alone
        if one.varies or not _is_same(one, right)
        for mistake in one.mistakes
    }
    left_out = {name for one in untried for name in one.mistakes}
    known = (made | set(unchanged)) - changing - left_out
    known -= {mistake.name for mistake in applying} - made
    return [name for name in get_args(MistakeName) if name in known]


def not_applying(
    applying: Sequence[Mistake],
    unchanged: Collection[MistakeName],
    untried: Sequence[Untried],
    claim: Claim,
) -> list[Untried]:
    """Mistakes that were neither tried nor named as untried so far."""
    known = {one.name for one in applying} | {name for one in untried for name in one.mistakes}
    known |= {*unchanged, claim, "bf16_noise", "truncated"}
    names = [name for name in get_args(MistakeName) if name not in known]
    reason = "this request, or numbers of this kind, leave nothing to try it on"
    return [Untried(mistakes=names, reason=reason)] if names else []


def order_diagnosis(fits: Sequence[OrderFit], untried: Sequence[Untried]) -> Diagnosis:
    """The answer about a reported order.

    Args:
        fits: the right recipe's first.
        untried: what was not looked for.
    """
    right, *others = fits
    chance = log_chance(fits)
    different = [one for one in others if one.order != right.order]
    fitting = [one for one in different if one.fits]
    verdict: Verdict = "agree"
    if not right.fits:
        is_credible = chance <= math.log(CHANCE)
        verdict = "none" if not fitting else "explained" if is_credible else "undetermined"
    nearest = sorted(different, key=lambda one: one.contradiction)
    explanations = [_order_explained(one, chance) for one in fitting[:SHOWN]]
    closest = (
        [_order_explained(one, chance) for one in nearest[:SHOWN]] if verdict == "none" else []
    )
    summary = _summary(verdict, explanations, closest, len(fitting), len(right.order))
    return Diagnosis(
        verdict=verdict,
        summary=f"{summary}; an order tells less than numbers do",
        numbers=len(right.order),
        tried=len(fits),
        explanations=explanations,
        also_fitting=_in_short([_order_explained(one, chance) for one in fitting], explanations),
        closest=closest,
        as_reported=_order_explained(right, chance),
        untried=list(untried),
        rank_agreement=right.tau,
    )


def explained(one: Finding) -> Explanation:
    """A finding as the answer has it."""
    names: list[MistakeName] = [mistake.name for mistake in one.mistakes]
    words = [mistake.about for mistake in one.mistakes]
    if any(mistake.continuous for mistake in one.mistakes):
        words.append(f"the temperature that comes nearest is {one.estimate:.6g}")
    if one.is_noisy:
        names.append("bf16_noise")
        words.append(NOISE)
    return Explanation(
        mistakes=names,
        about="; ".join(words) or "as it should be",
        fits=one.fit.fits,
        estimate=one.estimate,
        estimates=_estimates(one),
        estimate_range=one.estimate_range,
        largest_difference=one.fit.difference,
        tolerance=one.fit.tolerance,
        candidate=one.fit.worst.candidate,
        token=one.fit.worst.token,
        chance=min(1.0, math.exp(one.log_chance)) if one.fit.fits and names else None,
    )


def _order_explained(one: OrderFit, chance: float) -> Explanation:
    return Explanation(
        mistakes=[mistake.name for mistake in one.mistakes],
        about="; ".join(mistake.about for mistake in one.mistakes) or "as it should be",
        fits=one.fits,
        largest_difference=one.contradiction,
        tolerance=one.tolerance,
        candidate=one.candidate,
        chance=min(1.0, math.exp(chance)) if one.fits and one.mistakes else None,
    )


def _estimates(one: Finding) -> dict[MistakeName, float]:
    """By name, of mistakes that have one each; none where only one of them has."""
    found: dict[MistakeName, float] = {}
    for mistake in one.mistakes:
        value = one.estimate if mistake.continuous else mistake.estimate
        if value is not None:
            found[mistake.name] = value
    return found if len(found) > 1 else {}


def _in_short(
    fitting: Sequence[Explanation], shown: Sequence[Explanation]
) -> list[FittingMistakes]:
    """Those that fit and are not shown, each set of names once."""
    found: dict[frozenset[MistakeName], FittingMistakes] = {}
    for one in fitting:
        if one in shown:
            continue
        value = None if one.estimate is None else (one.estimate, one.estimate)
        span = one.estimate_range or value
        known = found.get(frozenset(one.mistakes))
        if known is None:
            found[frozenset(one.mistakes)] = FittingMistakes(
                mistakes=one.mistakes,
                estimate_range=span,
                largest_difference=one.largest_difference,
                chance=one.chance,
            )
            continue
        nearest = min(known.largest_difference, one.largest_difference)
        if span is not None and known.estimate_range is not None:
            low, high = known.estimate_range
            span = min(low, span[0]), max(high, span[1])
        changed = {"largest_difference": nearest, "estimate_range": span}
        found[frozenset(one.mistakes)] = known.model_copy(update=changed)
    return list(found.values())


def _simplest(fitting: Sequence[Finding]) -> list[Finding]:
    """What fits, the least probable to do so by chance first. Where bfloat16 alone does, nothing
    is said of it together with something else."""
    is_noise_enough = any(one.is_noisy and not one.mistakes for one in fitting)
    kept = [one for one in fitting if not (is_noise_enough and one.is_noisy and one.mistakes)]
    return sorted(kept, key=lambda one: (one.log_chance, one.parameters, one.fit.excess))


def _is_credible(one: Finding, right: Finding | None, numbers: int) -> bool:
    """Whether it is told from chance, and from being right."""
    if one.is_noisy and numbers < BF16_NUMBERS:
        return False
    if one.parameters and right is not None and right.fit.excess < WORSE:
        return False
    return one.log_chance <= math.log(CHANCE)


def _near(verdict: Verdict, right: Finding | None, shown: Sequence[Finding]) -> str | None:
    """In words, where what cannot be told is whether the numbers are right; None elsewhere."""
    if verdict != "undetermined" or right is None:
        return None
    if right.fit.fits:
        return (
            "they agree, but numbers with so few digits would by chance as well: give more "
            "candidates, or more digits"
        )
    if any(one.is_noisy and not one.mistakes for one in shown):
        return (
            f"right within {right.fit.difference:.4g}, as low precision would give: too few "
            "numbers to tell it from a mistake"
        )
    return None


def _is_same(one: Finding, other: Finding) -> bool:
    pairs = zip(one.fit.values, other.fit.values, strict=True)
    return all(math.isclose(a, b, rel_tol=SAME, abs_tol=SAME) for a, b in pairs)


def _summary(
    verdict: Verdict,
    explanations: Sequence[Explanation],
    closest: Sequence[Explanation],
    fitting: int,
    numbers: int,
) -> str:
    names = [" and ".join(one.mistakes) for one in explanations]
    if verdict == "agree":
        alike = f", as they would with {_listed(names)}" if names else ""
        return f"they agree{alike}"
    if verdict == "none":
        if not closest:
            return "none of these: nothing that was tried makes so many numbers"
        nearest = closest[0]
        return (
            f"none of these: {' and '.join(nearest.mistakes)} comes nearest, and is "
            f"{nearest.largest_difference:.4g} away"
        )
    if verdict == "explained":
        if fitting == 1:
            return names[0]
        return f"{names[0]}; {count_of(fitting, 'explanation')} fit: {_listed(names)}"
    return (
        f"{_listed(names)} would fit, but {count_of(numbers, 'number')} with so few digits "
        "would be fitted by chance as well"
    )


def _listed(names: Sequence[str]) -> str:
    return ", or ".join(dict.fromkeys(names))
