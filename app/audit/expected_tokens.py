"""Every scored token beside what it should, and what it should not, have been given.

The usual mistake is the one-position shift. A token's log-probability is in the row *before* it::

    path      x0   x1   y0   y1
    row of y0       ^                 expected: behind x0 x1
                ^                     before:   behind x0 alone
                     ^                after:    behind x0 x1 y0, which knows y0 already
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.audit.evidence import Evidence
from app.audit.tokenization import Path
from app.schemas.score_response import CandidateScore
from model_runtime import log_sum, total


@dataclass(frozen=True, slots=True)
class ExpectedToken:
    """One scored token.

    Attributes:
        index: of the candidate.
        position: of the token in it, from 0.
        text: of the token.
        reported: what /v1/score gave it.
        expected: what follows from a separate question that was never shown the token.
        before, after: the same one position earlier, and later; None where there is none.
        among: what it would be if only the candidates' own tokens could follow.
    """

    index: int
    position: int
    text: str
    reported: float
    expected: float
    before: float | None
    after: float | None
    among: float


def with_expected_tokens(evidence: Evidence) -> tuple[CandidateScore, ...]:
    """The candidates whose listed tokens are the ones that they should have."""
    return tuple(one for one in evidence.good if _ids(one, evidence) == _path(one, evidence))


def expected_tokens(evidence: Evidence) -> tuple[ExpectedToken, ...]:
    """One for each token of the aligned candidates, an appended end included."""
    candidates = with_expected_tokens(evidence)
    return tuple(
        _step(evidence, candidates, one, place)
        for one in candidates
        for place in range(len(one.tokens or ()))
    )


def expected_sums(steps: Sequence[ExpectedToken]) -> dict[int, float]:
    """Each candidate's log-probability by the separate questions, by index."""
    indices = dict.fromkeys(step.index for step in steps)
    return {
        index: total([step.expected for step in steps if step.index == index]) for index in indices
    }


def wanted_rows(evidence_paths: Sequence[tuple[Path, Path]], ends: Path) -> dict[Path, set[int]]:
    """Which prefixes to ask about, and which tokens at each.

    Args:
        evidence_paths: prefix and scored tokens of each candidate.
        ends: tokens that end a sequence, where the end is scored; empty where not.
    """
    wanted: dict[Path, set[int]] = {}
    for prefix, scored in evidence_paths:
        whole = prefix + scored
        for length in range(max(1, len(prefix) - 1), len(whole) + 1):
            near = whole[max(len(prefix), length - 1) : length + 2]
            wanted.setdefault(whole[:length], set()).update(near)
        wanted[whole].update(ends)
    return wanted


def _ids(one: CandidateScore, evidence: Evidence) -> Path:
    ids = tuple(token.id for token in one.tokens or ())
    return ids[:-1] if evidence.request.append_eos else ids


def _path(one: CandidateScore, evidence: Evidence) -> Path:
    return evidence.split.paths[one.index]


def _step(
    evidence: Evidence, candidates: Sequence[CandidateScore], one: CandidateScore, place: int
) -> ExpectedToken:
    whole = evidence.split.whole(one.index)
    length = len(evidence.split.prefix) + place
    token = (one.tokens or [])[place]
    expected = _logprob(evidence, whole, length)
    siblings = dict(_siblings(evidence, candidates, whole[:length]))
    is_end = length == len(whole)
    return ExpectedToken(
        index=one.index,
        position=place,
        text=token.text,
        reported=token.logprob,
        expected=expected,
        before=None if is_end else _other(evidence, whole[: length - 1], whole[length]),
        after=None if is_end else _other(evidence, whole[: length + 1], whole[length]),
        among=expected - log_sum(list(siblings.values())) if siblings else expected,
    )


def _logprob(evidence: Evidence, whole: Path, length: int) -> float:
    """Of the token at a place of a path; of any end behind the whole path."""
    row = evidence.rows[whole[:length]].logprobs
    if length < len(whole):
        return row[whole[length]]
    return log_sum([row[token] for token in evidence.info.end_token_ids])


def _siblings(
    evidence: Evidence, candidates: Sequence[CandidateScore], prefix: Path
) -> Iterator[tuple[int, float]]:
    """The tokens that candidates have behind ``prefix``, and their log-probabilities."""
    for one in candidates:
        whole, end = evidence.split.whole(one.index), len(prefix)
        if whole[:end] != prefix or (end == len(whole) and not evidence.request.append_eos):
            continue
        value = _logprob(evidence, whole, end)
        if math.isfinite(value):
            yield (whole[end] if end < len(whole) else -1), value


def _other(evidence: Evidence, prefix: Path, token: int) -> float | None:
    row = evidence.rows.get(prefix)
    return None if row is None else row.logprobs.get(token)
