"""The mistakes that are known, each as a change of the recipe that would be right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.audit.diagnosis.inputs import ModelInput
from app.audit.diagnosis.rows import LISTED
from app.schemas.diagnosis import MistakeName
from app.schemas.reported import Claim, ReportedKind

Continuous = Literal["temperature", "among_temperature"]

USUAL_TOP_KS = frozenset({2, 3, 4, 5, 8, 10, 16, 20, 25, 30, 32, 40, 50, 64, 100})
"""That are tried together with another mistake; alone each one up to ``LISTED`` is."""

USUAL_CUTS = 32
"""Of the candidates' tokens: so many first ones at most are tried with another mistake."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing done wrong.

    Attributes:
        name: as the answer has it.
        about: the same in words.
        changes: fields of the recipe and their values.
        estimate: the value that was taken of several; None where there is but one.
        continuous: the field whose value is to be estimated; None for none.
        needs: fields of the recipe that must have other values than these for it to mean anything.
        is_usual: it is tried together with others.
    """

    name: MistakeName
    about: str
    changes: Mapping[str, Any]
    estimate: float | None = None
    continuous: Continuous | None = None
    is_usual: bool = True

    @property
    def fields(self) -> frozenset[str]:
        """What it decides."""
        own = {self.continuous} if self.continuous else set()
        # A softmax over some tokens, or at a temperature, is one softmax.
        return frozenset({*self.changes, *own})

    @property
    def parameters(self) -> int:
        """Values that are fitted to the reported numbers."""
        return int(self.estimate is not None or self.continuous is not None)


def goes_with(one: Mistake, other: Mistake) -> bool:
    """Whether the two can be made at once, and are not one."""
    if one.name == other.name or not (one.is_usual and other.is_usual):
        return False
    if one.continuous and other.continuous:
        return False
    return not one.fields & other.fields


@dataclass(frozen=True, slots=True)
class Setting:
    """What mistakes depend on.

    Attributes:
        kind: of the reported numbers.
        claim: what the scores are said to be.
        append_eos: an end belongs to them.
        end_ids: of the model; none where it has no end.
        eos: the tokenizer's own among several.
        scored_tokens: of the longest candidate.
        candidates: that could be scored.
    """

    kind: ReportedKind
    claim: Claim
    append_eos: bool
    end_ids: Sequence[int]
    eos: int | None
    scored_tokens: int
    candidates: int


def mistakes(setting: Setting, inputs: Sequence[ModelInput]) -> list[Mistake]:
    """All that apply, the commonest of each kind first.

    Args:
        setting: what is compared.
        inputs: what may have been fed; the first is the request's own.
    """
    found = [*_of_places(), *_of_ends(setting), *_of_inputs(inputs), *_of_cuts(setting)]
    found += _of_softmax()
    if setting.kind in ("totals", "probabilities", "order"):
        found += _of_divisors(setting)
    if setting.kind in ("totals", "probabilities") and setting.candidates > 1:
        about = "a softmax over the candidates was taken in place of the vocabulary's"
        found.append(Mistake("softmax_over_candidates", about, {"among": True}))
        at = "the softmax over the candidates was taken at a temperature"
        found.append(Mistake("temperature", at, {}, continuous="among_temperature"))
    if setting.kind != "probabilities":
        found += _of_units()
    return found


def _of_places() -> Iterator[Mistake]:
    yield Mistake(
        "shifted_by_one",
        "each token was read from the logits at its own position, which are for the next one",
        {"shift": 1},
    )
    yield Mistake(
        "shifted_twice",
        "each token was read from the logits two positions before it, one too early",
        {"shift": -1},
    )
    yield Mistake(
        "window_early",
        "the tokens that were added up begin and end one position too early",
        {"window": "early"},
    )
    yield Mistake(
        "first_token_dropped", "the first token was left out", {"window": "first_dropped"}
    )
    yield Mistake(
        "prompt_scored", "the context's own tokens were scored as well", {"window": "with_prompt"}
    )


def _of_ends(setting: Setting) -> Iterator[Mistake]:
    if setting.append_eos:
        yield Mistake("end_missing", "the end was not scored", {"end": "none"})
    elif setting.end_ids:
        yield Mistake("end_added", "an end was scored as well", {"end": "any"})
        if len(setting.end_ids) > 1 and setting.eos in setting.end_ids:
            about = "the tokenizer's own end token was scored as well"
            yield Mistake("end_added", about, {"end": "eos"})


def _of_inputs(inputs: Sequence[ModelInput]) -> Iterator[Mistake]:
    for place, made in enumerate(inputs):
        if len(parts := _parts(place, made)) == 1:
            yield from parts


def of_two_in_one_input(inputs: Sequence[ModelInput]) -> list[tuple[Mistake, ...]]:
    """The two mistakes of each input that has two."""
    found = [_parts(place, made) for place, made in enumerate(inputs)]
    return [parts for parts in found if len(parts) > 1]


def _parts(place: int, made: ModelInput) -> tuple[Mistake, ...]:
    return tuple(
        Mistake(
            one.mistake,
            one.about,
            {"source": place},
            None if one.length is None else float(one.length),
        )
        for one in made.parts
        if one.mistake is not None
    )


def _of_cuts(setting: Setting) -> Iterator[Mistake]:
    for count in range(1, setting.scored_tokens + setting.append_eos):
        yield Mistake(
            "truncated",
            f"only the first {count} scored tokens of each candidate were kept",
            {"cut": count},
            float(count),
            is_usual=count <= USUAL_CUTS,
        )


def _of_softmax() -> Iterator[Mistake]:
    for count in range(2, LISTED + 1):
        yield Mistake(
            "softmax_over_top_k",
            f"the softmax was taken over the {count} most probable tokens only",
            {"top_k": count, "temperature": None},
            float(count),
            is_usual=count in USUAL_TOP_KS,
        )
    about = "logits were divided by a temperature"
    yield Mistake("temperature", about, {"top_k": None}, continuous="temperature")


def _of_divisors(setting: Setting) -> Iterator[Mistake]:
    words = {
        "sum": "log-probabilities were added up, and divided by nothing",
        "mean": "the sum was divided by the number of scored tokens",
        "per_byte": "the sum was divided by the candidate's bytes",
        "per_char": "the sum was divided by the candidate's characters",
    }
    names: tuple[Claim, ...] = ("mean", "sum", "per_byte", "per_char")
    for name in names:
        if name != setting.claim:
            yield Mistake(name, words[name], {"divisor": name})
    for divisor, what in (("all_tokens", "tokens"), ("all_predicted", "predictions")):
        about = f"the sum was divided by the {what} of context and candidate together"
        yield Mistake("prompt_in_length", about, {"divisor": divisor})


def _of_units() -> Iterator[Mistake]:
    yield Mistake("base_2", "logarithms are to base 2", {"log_base": math.log(2)})
    yield Mistake("base_10", "logarithms are to base 10", {"log_base": math.log(10)})
    yield Mistake("negated", "signs are turned round, as in a loss", {"sign": -1})
