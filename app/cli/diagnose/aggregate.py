"""One verdict on all lines of a file: what explains them must explain each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from app.audit.wording import count_of
from app.schemas.diagnosis import Diagnosis, Explanation, FittingMistakes, MistakeName, Verdict
from app.schemas.response import OmitEmpty, OmitNone, ResponseModel

CHANCE: Final = 0.05
"""As of one line."""

ALWAYS_POSSIBLE: Final[frozenset[MistakeName]] = frozenset({"truncated", "bf16_noise"})
"""Mistakes that may leave a line as it is: a text that is short enough, noise that is small."""

EXIT_STATUS: Final[dict[Verdict, int]] = {
    "agree": 0,
    "explained": 3,
    "undetermined": 4,
    "none": 4,
}


class FileExplanation(ResponseModel):
    """Mistakes that explain every line."""

    mistakes: list[MistakeName]
    about: str
    """In words, as of the first line that they explain."""
    estimate_range: OmitNone[tuple[float, float]] = None
    """What was estimated lies between these on every line; absent where nothing was."""
    lines: int
    """Lines whose numbers they change."""
    unchecked: OmitEmpty[int] = 0
    """Lines that are right and on which they were not tried, so that nothing is known."""
    largest_difference: float
    """Of any number of these lines."""


class FileDiagnosis(ResponseModel):
    """The verdict on a file."""

    verdict: Verdict
    summary: str
    lines: int
    """That were diagnosed."""
    failed: OmitEmpty[int] = 0
    """That could not be."""
    agreeing: int
    """Whose numbers are right."""
    silent: OmitEmpty[int] = 0
    """Whose numbers say too little to be explained by anything; they count for nothing."""
    explanations: OmitEmpty[list[FileExplanation]] = Field(default_factory=list)
    """What explains every line, fewest mistakes first."""
    partial: OmitEmpty[list[FileExplanation]] = Field(default_factory=list)
    """Where nothing does: what explains most of them."""

    @property
    def exit_status(self) -> int:
        """Of the command, where no line failed."""
        return EXIT_STATUS[self.verdict]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Mistakes that explain some line."""

    names: frozenset[MistakeName]
    first: Explanation | FittingMistakes


def diagnose_file(lines: Sequence[Diagnosis], failed: int) -> FileDiagnosis:
    """The verdict on all lines that were diagnosed."""
    agreeing = sum(one.verdict == "agree" for one in lines)
    told = [one for one in lines if one.verdict != "undetermined"]
    silent = len(lines) - len(told)
    shared = {"lines": len(lines), "failed": failed, "agreeing": agreeing, "silent": silent}
    # A line that is right, were it by chance, says nothing against the others.
    lines = [one for one in lines if one.verdict == "agree" or not _is_right(one)]
    if silent and not lines:
        words = "they agree, but would by chance as well"
        return FileDiagnosis(verdict="undetermined", summary=words, **shared)
    if lines and agreeing == len(lines):
        return FileDiagnosis(verdict="agree", summary="they agree on every line", **shared)
    # Where every line says too little, all of them together may say enough.
    counted = told if any(one.verdict != "agree" for one in told) else lines
    tested = [_tested(candidate, counted) for candidate in _candidates(counted)]
    whole = [(one, chance) for one, missing, chance in tested if not missing]
    partial = sorted((one for one, missing, _ in tested if missing), key=lambda one: -one.lines)
    credible = [one for one, chance in whole if chance <= math.log(CHANCE)]
    shown = sorted(credible or [one for one, _ in whole], key=lambda one: len(one.mistakes))
    verdict: Verdict = "explained" if credible else "undetermined" if whole else "none"
    return FileDiagnosis(
        verdict=verdict,
        summary=_summary(verdict, shown, partial, len(counted) - agreeing),
        explanations=shown,
        partial=[] if shown else partial[:8],
        **shared,
    )


def _is_right(line: Diagnosis) -> bool:
    """Whether its numbers are right, were it by chance."""
    return line.as_reported is not None and line.as_reported.fits


def _candidates(lines: Sequence[Diagnosis]) -> list[_Candidate]:
    """Whatever explains a line that is not right, in the order in which it was first met."""
    found: dict[frozenset[MistakeName], _Candidate] = {}
    for line in lines:
        if line.verdict == "agree":
            continue
        for one in _fitting(line):
            names = frozenset(one.mistakes)
            known = found.get(names)
            # Words are better than names alone.
            if known is None or not isinstance(known.first, Explanation):
                found[names] = _Candidate(names, one)
    return list(found.values())


def _tested(
    candidate: _Candidate, lines: Sequence[Diagnosis]
) -> tuple[FileExplanation, int, float]:
    """On how many lines it fails, and the logarithm of how probable it is to fit by chance."""
    low, high = 0.0, math.inf
    missing = changed = unchecked = 0
    chance = worst = 0.0
    for line in lines:
        found = _explains(candidate, line, low, high)
        if found is None:
            is_unchecked = _is_unchecked(candidate, line)
            unchecked += is_unchecked
            missing += not (is_unchecked or _leaves(candidate, line))
            continue
        span = found.estimate_range
        if span is not None:
            low, high = max(low, span[0]), min(high, span[1])
        if line.verdict != "agree":
            changed += 1
            worst = max(worst, found.largest_difference)
            chance += math.log(max(found.chance or 1.0, 1e-300))
    explanation = FileExplanation(
        mistakes=candidate.first.mistakes,
        about=_about(candidate.first),
        estimate_range=None if math.isinf(high) else (low, high),
        lines=changed,
        unchecked=unchecked,
        largest_difference=worst,
    )
    return explanation, missing, chance


def _fitting(line: Diagnosis) -> list[Explanation | FittingMistakes]:
    """Whatever fits there, shown in full or in short."""
    return [*line.explanations, *line.also_fitting]


def _about(one: Explanation | FittingMistakes) -> str:
    return one.about if isinstance(one, Explanation) else " and ".join(one.mistakes)


def _explains(
    candidate: _Candidate, line: Diagnosis, low: float, high: float
) -> Explanation | FittingMistakes | None:
    """What fits a line and is made of these mistakes, or of those of them that change anything
    there, with an estimate between these."""
    for one in _fitting(line):
        span = one.estimate_range
        if span is not None and max(low, span[0]) > min(high, span[1]):
            continue
        names = frozenset(one.mistakes)
        if names <= candidate.names and _are_possible(candidate.names - names, line):
            return one
    return None


def _leaves(candidate: _Candidate, line: Diagnosis) -> bool:
    """Whether a line that is right could be so with these mistakes."""
    return line.verdict == "agree" and _are_possible(candidate.names, line)


def _is_unchecked(candidate: _Candidate, line: Diagnosis) -> bool:
    """Whether a line that is right was not compared with these mistakes."""
    untried = {name for one in line.untried for name in one.mistakes}
    return line.verdict == "agree" and not untried.isdisjoint(candidate.names)


def _are_possible(names: frozenset[MistakeName], line: Diagnosis) -> bool:
    """Whether these mistakes could have been made there without a trace."""
    traceless = {name for one in _fitting(line) for name in one.mistakes}
    if line.verdict != "agree":
        traceless = set()
    return names <= ALWAYS_POSSIBLE | traceless | {*line.unaffected}


def _summary(
    verdict: Verdict,
    shown: Sequence[FileExplanation],
    partial: Sequence[FileExplanation],
    wrong: int,
) -> str:
    names = [" and ".join(one.mistakes) for one in shown]
    if verdict == "explained":
        more = f"; as well as {', or '.join(names[1:])}" if len(names) > 1 else ""
        unchecked = shown[0].unchecked
        but = f" but {count_of(unchecked, 'line')} where it was not tried" if unchecked else ""
        return f"{names[0]} explains every line{but}{more}"
    if verdict == "undetermined":
        return f"{', or '.join(names)} would fit, but random numbers would be fitted as easily"
    if not partial:
        return "none of these"
    best = partial[0]
    return f"none of these: {' and '.join(best.mistakes)} explains {best.lines} of {wrong} lines"
