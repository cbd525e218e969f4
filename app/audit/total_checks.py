"""Checks of what is derived from log-probabilities: lengths, sums, ranks, probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from app.audit.evidence import Evidence, sum_of, sum_of_tokens
from app.audit.expected_tokens import ExpectedToken
from app.audit.wording import count_of, nats
from app.schemas.audit_response import Check
from app.schemas.score_response import CandidateScore
from model_runtime import competition_ranks, probabilities

ROUNDING = 1e-9
"""Relative: what dividing a float64 and multiplying it again may change."""


def prompt_in_length(evidence: Evidence, _steps: Sequence[ExpectedToken]) -> Check:
    """Whether a score was divided by more than the candidate's own tokens, bytes, characters."""
    found = [words for one in evidence.good for words in _wrong_lengths(evidence, one)]
    counted = sum(one.token_count or 0 for one in evidence.good)
    expected = sum(_own_tokens(evidence, one) for one in evidence.good)
    context = len(evidence.split.context)
    candidates = count_of(len(evidence.good), "candidate")
    healthy = (
        f"{candidates}: divided by {count_of(expected, 'token')} in all, none of them one of the "
        f"{count_of(len(evidence.split.prefix), 'token')} before, and by bytes and characters of "
        "the candidates alone"
    )
    return Check(
        name="prompt_in_length",
        passed=not found,
        detail="; ".join(found[:3]) or healthy,
        measured={
            "counted": float(counted),
            "expected": float(expected),
            "context_tokens": float(context),
        },
    )


def batch_invariance(evidence: Evidence, _steps: Sequence[ExpectedToken]) -> Check:
    """Whether a candidate scores alone what it scores among the others."""
    pairs = [(one, evidence.alone[one.index]) for one in evidence.good]
    failed = [one.index for one, alone in pairs if alone.logprob is None]
    far = [
        one.index
        for one, alone in pairs
        if alone.logprob is not None
        and evidence.differ(sum_of(one), alone.logprob, one.token_count or 1)
    ]
    largest = max(
        (abs(sum_of(one) - alone.logprob) for one, alone in pairs if alone.logprob is not None),
        default=0.0,
    )
    detail = f"{count_of(len(pairs), 'candidate')} scored again, each alone"
    if failed or far:
        detail += f": candidates {failed + far} score otherwise"
    return Check(
        name="neighbours",
        passed=not (failed or far),
        detail=f"{detail}; the largest difference is {nats(largest)}",
        measured={"candidates": float(len(pairs)), "largest_difference": largest},
    )


def sums_and_ranks(evidence: Evidence, _steps: Sequence[ExpectedToken]) -> Check:
    """Whether totals, ranks and probabilities follow from the tokens that are listed."""
    good = evidence.good
    found = [
        f"candidate {one.index} has {sum_of(one):.6g}, its tokens add up to "
        f"{sum_of_tokens(one):.6g}"
        for one in good
        if not math.isclose(sum_of(one), sum_of_tokens(one), rel_tol=ROUNDING)
    ]
    sums = [sum_of_tokens(one) for one in good]
    ranks = competition_ranks(sums)
    if ranks != [one.rank for one in good]:
        found.append(f"ranks are {[one.rank for one in good]}, by the sums they are {ranks}")
    shares = probabilities(sums)
    if any(
        one.probability is None or not math.isclose(one.probability, share or 0.0, abs_tol=1e-6)
        for one, share in zip(good, shares, strict=True)
    ):
        found.append("probability is not the softmax of the sums over the candidates")
    return Check(
        name="sums_and_ranks",
        passed=not found,
        detail="; ".join(found[:3])
        or f"{count_of(len(good), 'candidate')}: sums, ranks and probabilities follow from the "
        "listed tokens",
        measured={"candidates": float(len(good)), "wrong": float(len(found))},
    )


def _own_tokens(evidence: Evidence, one: CandidateScore) -> int:
    return len(evidence.split.paths[one.index]) + evidence.request.append_eos


def _wrong_lengths(evidence: Evidence, one: CandidateScore) -> Iterator[str]:
    """What one candidate's scores were divided by, where it is not what they say."""
    own, context = _own_tokens(evidence, one), len(evidence.split.context)
    sizes = {
        "tokens": (one.mean_logprob, own),
        "bytes": (one.logprob_per_byte, len(evidence.split.contents[one.index])),
        "characters": (one.logprob_per_char, evidence.split.characters[one.index]),
    }
    listed = len(one.tokens or ())
    for what, counted in (("counts", one.token_count), ("lists", listed)):
        if counted != own:
            yield f"candidate {one.index} {what} {counted} tokens; it has {own}" + _context_hint(
                own, counted or 0, context
            )
    for unit, (average, size) in sizes.items():
        if average is None or math.isclose(average * size, sum_of(one), rel_tol=ROUNDING):
            continue
        divisor = sum_of(one) / average if average else math.inf
        blame = _context_hint(own, divisor, context) if unit == "tokens" else ""
        yield (f"candidate {one.index} is divided by {divisor:.6g} {unit}; it has {size}{blame}")


def _context_hint(own: int, counted: float, context: int) -> str:
    extra = counted - own
    if math.isclose(extra, context, rel_tol=1e-6):
        return f": the {context} of the context are counted in"
    return ""
