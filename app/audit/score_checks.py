"""The usual scoring mistakes, each looked for in one answer.

A check compares what /v1/score reported with facts that were come by in another way. It never
looks at how the server computes: a mistake is named by what it does to the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from app.audit.evidence import Evidence, sum_of
from app.audit.expected_tokens import (
    ExpectedToken,
    expected_sums,
    expected_tokens,
    with_expected_tokens,
)
from app.audit.token_checks import doubled_special_tokens, token_split
from app.audit.total_checks import batch_invariance, prompt_in_length, sums_and_ranks
from app.audit.wording import count_of, nats, quoted, unchecked
from app.schemas.audit_response import Check

NumberCheck = Callable[[Evidence, Sequence[ExpectedToken]], Check]

MASS_TOLERANCE = 1e-3


def run_checks(evidence: Evidence) -> list[Check]:
    """All of them, the usual suspects first."""
    steps = expected_tokens(evidence)
    return [check(evidence, steps) for check in CHECKS]


def shifted_positions(evidence: Evidence, steps: Sequence[ExpectedToken]) -> Check:
    """Whether a token was given the log-probability of the position before or behind it."""
    if not steps:
        return unchecked("shifted_positions", "no candidate has the tokens that it should have")
    wrong = [step for step in steps if evidence.differ(step.reported, step.expected)]
    early = [step for step in wrong if _is(evidence, step, step.before)]
    late = [step for step in wrong if _is(evidence, step, step.after)]
    blind = bool(evidence.probes) and all(probe.ignores_last_token for probe in evidence.probes)
    return Check(
        name="shifted_positions",
        passed=not (early or late or blind),
        detail=_shift_words(steps, early, late, blind=blind),
        measured={
            "tokens": float(len(steps)),
            "one_too_early": float(len(early)),
            "one_too_late": float(len(late)),
            "probes": float(len(evidence.probes)),
            "blind_probes": float(sum(probe.ignores_last_token for probe in evidence.probes)),
        },
    )


def softmax_over_candidates(evidence: Evidence, steps: Sequence[ExpectedToken]) -> Check:
    """Whether probabilities were made to add up over the candidates, not the vocabulary."""
    if not steps:
        return unchecked(
            "softmax_over_candidates", "no candidate has the tokens that it should have"
        )
    wrong = [step for step in steps if evidence.differ(step.reported, step.expected)]
    tokenwise = [step for step in wrong if _is(evidence, step, step.among)]
    expected = expected_sums(steps)
    reported = {one.index: sum_of(one) for one in with_expected_tokens(evidence)}
    mass = math.fsum(map(math.exp, expected.values()))
    shown = math.fsum(map(math.exp, reported.values()))
    whole = (
        abs(shown - 1) <= MASS_TOLERANCE
        and mass > 0
        and all(
            not evidence.differ(reported[index], value - math.log(mass), len(steps))
            for index, value in expected.items()
        )
        and any(
            evidence.differ(reported[index], value, len(steps)) for index, value in expected.items()
        )
    )
    return Check(
        name="softmax_over_candidates",
        passed=not (tokenwise or whole),
        detail=_softmax_words(tokenwise, len(steps), shown, mass, whole=whole),
        measured={
            "reported_mass": shown,
            "vocabulary_mass": mass,
            "tokens_among_candidates": float(len(tokenwise)),
        },
    )


def token_by_token(evidence: Evidence, steps: Sequence[ExpectedToken]) -> Check:
    """Whether a whole path scores what its tokens score when each is asked for alone."""
    if not steps:
        return unchecked("token_by_token", "no candidate has the tokens that it should have")
    worst = max(steps, key=lambda step: _distance(step.reported, step.expected))
    largest = _distance(worst.reported, worst.expected)
    where = f"{quoted(worst.text)}, token {worst.position} of candidate {worst.index}"
    return Check(
        name="token_by_token",
        passed=not evidence.differ(worst.reported, worst.expected),
        detail=(
            f"{count_of(len(steps), 'token')} asked for again, each behind its own prefix: the "
            f"largest difference is {nats(largest)}, at {where}, where the whole path has "
            f"{worst.reported:.6g} and the token alone {worst.expected:.6g}"
        ),
        measured={"tokens": float(len(steps)), "largest_difference": _finite(largest)},
    )


def full_vocabulary(evidence: Evidence, _steps: Sequence[ExpectedToken]) -> Check:
    """Whether one whole distribution adds up to 1 and has the entropy that is reported."""
    listed = [token.logprob for token in evidence.full.top[0]]
    mass = math.fsum(math.exp(value) for value in listed)
    entropy = -math.fsum(math.exp(value) * value for value in listed if value > -math.inf)
    reported = evidence.tail.entropy
    size = evidence.info.vocab_size
    good = abs(mass - 1) <= MASS_TOLERANCE and abs(entropy - reported) <= MASS_TOLERANCE * 10
    return Check(
        name="full_vocabulary",
        passed=good and len(listed) == size,
        detail=(
            f"behind the context's end {len(listed)} of {size} tokens have a probability, "
            f"{mass:.7f} in all; their entropy is {entropy:.6f}, {reported:.6f} is reported"
        ),
        measured={
            "tokens": float(len(listed)),
            "vocab_size": float(size),
            "mass": mass,
            "entropy": entropy,
            "reported_entropy": reported,
        },
    )


CHECKS: Final[tuple[NumberCheck, ...]] = (
    shifted_positions,
    softmax_over_candidates,
    doubled_special_tokens,
    prompt_in_length,
    token_by_token,
    token_split,
    full_vocabulary,
    batch_invariance,
    sums_and_ranks,
)
"""In the order of the answer."""


def _is(evidence: Evidence, step: ExpectedToken, value: float | None) -> bool:
    return value is not None and not evidence.differ(step.reported, value)


def _distance(one: float, other: float) -> float:
    distance = abs(one - other)
    return math.inf if math.isnan(distance) else distance


def _finite(value: float) -> float:
    """JSON has no infinity."""
    return min(value, 1e308)


def _shift_words(
    steps: Sequence[ExpectedToken],
    early: Sequence[ExpectedToken],
    late: Sequence[ExpectedToken],
    *,
    blind: bool,
) -> str:
    if late:
        return f"{_like(late, steps, 'behind')}, which has seen the token already"
    if early:
        return f"{_like(early, steps, 'before')}, which has not seen the last token of its prefix"
    if blind:
        return (
            "a distribution stays the same whatever the last token of its prefix is: "
            "it belongs to the position before"
        )
    return (
        f"none of {count_of(len(steps), 'token')} has the log-probability of the position before "
        "or behind it, and exchanging the last token of a prefix changes what follows"
    )


def _like(found: Sequence[ExpectedToken], steps: Sequence[ExpectedToken], side: str) -> str:
    first = found[0]
    other = first.after if side == "behind" else first.before
    return (
        f"{len(found)} of {count_of(len(steps), 'token')} have the log-probability of the position "
        f"{side}: {quoted(first.text)}, token {first.position} of candidate {first.index}, is "
        f"given {first.reported:.6g}; its own position says {first.expected:.6g}, the one {side} "
        f"{other or 0.0:.6g}"
    )


def _softmax_words(
    tokenwise: Sequence[ExpectedToken], tokens: int, shown: float, mass: float, *, whole: bool
) -> str:
    if whole:
        return (
            f"the reported probabilities add up to {shown:.6f} over the candidates; by the whole "
            f"vocabulary they have {mass:.6g} together: a softmax over candidates was reported"
        )
    if tokenwise:
        first = tokenwise[0]
        return (
            f"{len(tokenwise)} of {count_of(tokens, 'token')} are as probable as if only the "
            f"candidates' own tokens could follow: {quoted(first.text)}, token {first.position} of "
            f"candidate {first.index}, is given {first.reported:.6g}, by the whole vocabulary it "
            f"has {first.expected:.6g}"
        )
    return (
        f"the candidates' reported probabilities add up to {shown:.6g}, by separate questions over "
        f"the whole vocabulary to {mass:.6g}; only `probability` divides by their sum"
    )
