"""Two candidates side by side: where the lead changes hands, and which token decides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, zip_longest

from app.audit.evidence import Evidence, sum_of
from app.audit.wording import nats, quoted
from app.schemas.audit_response import PairAudit, PositionDelta
from app.schemas.response import TokenDetail
from app.schemas.score_response import CandidateScore


def pair_audits(evidence: Evidence) -> list[PairAudit]:
    """The pairs that were asked for, or the two best; without those that could not be scored."""
    results = {one.index: one for one in evidence.scored}
    asked = evidence.request.pairs
    if asked is None:
        best = sorted(results.values(), key=lambda one: -sum_of(one))[:2]
        asked = [[one.index for one in best]] if len(best) == 2 else []
    return [
        compare(results[first], results[second], evidence.request.candidates)
        for first, second in asked
        if first in results and second in results
    ]


def compare(
    one: CandidateScore, other: CandidateScore, candidates: Sequence[str | list[int]]
) -> PairAudit:
    """Compare two candidates that could be scored; of equal ones the first is the better."""
    better, worse = (one, other) if sum_of(one) >= sum_of(other) else (other, one)
    deltas = _turns(better.tokens or [], worse.tokens or [])
    deciding = max(deltas, key=lambda delta: delta.gain)
    difference = sum_of(better) - sum_of(worse)
    changes = _lead_changes(deltas)
    names = _name(better.index, candidates), _name(worse.index, candidates)
    return PairAudit(
        better=better.index,
        worse=worse.index,
        difference=difference,
        lead_changes=changes,
        deciding=deciding,
        lead_without=difference - deciding.gain,
        explanation=_explain(names, deltas, changes, deciding, difference),
    )


def _turns(better: Sequence[TokenDetail], worse: Sequence[TokenDetail]) -> list[PositionDelta]:
    deltas: list[PositionDelta] = []
    mine, theirs = 0.0, 0.0
    for position, (one, other) in enumerate(zip_longest(better, worse)):
        gain = (one.logprob if one else 0.0) - (other.logprob if other else 0.0)
        mine += one.logprob if one else 0.0
        theirs += other.logprob if other else 0.0
        deltas.append(
            PositionDelta(
                position=position,
                better=one.text if one else None,
                worse=other.text if other else None,
                gain=gain,
                lead=mine - theirs,
            )
        )
    return deltas


def _lead_changes(deltas: Sequence[PositionDelta]) -> list[PositionDelta]:
    """The turns after which the sign of the lead is another than it last was; 0 has none."""
    leading = [delta for delta in deltas if delta.lead != 0]
    return [delta for before, delta in pairwise(leading) if (before.lead > 0) != (delta.lead > 0)]


def _explain(
    names: tuple[str, str],
    deltas: Sequence[PositionDelta],
    changes: Sequence[PositionDelta],
    deciding: PositionDelta,
    difference: float,
) -> str:
    better, worse = names
    if difference == 0:
        return f"{better} and {worse} have the same sum"
    if changes:
        last = changes[-1]
        before = deltas[last.position - 1].lead
        course = (
            f"{worse} is {nats(-before)} ahead until token {last.position}, where "
            f"{_sides(last)}: there {better} takes the lead and keeps it"
        )
    else:
        first = next((delta for delta in deltas if delta.lead != 0), None)
        course = f"{better} leads, though no token of the two differs"
        if first is not None:
            course = f"{better} leads from token {first.position} on, where {_sides(first)}"
    without = difference - deciding.gain
    if without == 0:
        rest = "without it the two would be level"
    elif without < 0:
        rest = f"without it {worse} would be {nats(-without)} ahead"
    else:
        rest = f"without it {better} would still be {nats(without)} ahead"
    return (
        f"{course}. In the end {nats(difference)} lie between them. Token {deciding.position} "
        f"decides: it gains {nats(deciding.gain)}; {rest}."
    )


def _sides(delta: PositionDelta) -> str:
    """What the two have there, the better one first; one of them may have ended."""
    if delta.better is None:
        return f"it has ended and {quoted(delta.worse or '')} costs the other {nats(delta.gain)}"
    if delta.worse is None:
        return f"{quoted(delta.better)} costs it {nats(-delta.gain)} and the other has ended"
    more = "more" if delta.gain >= 0 else "less"
    better, worse = quoted(delta.better), quoted(delta.worse)
    return f"{better} is {nats(abs(delta.gain))} {more} probable than {worse}"


def _name(index: int, candidates: Sequence[str | list[int]]) -> str:
    given = candidates[index]
    return quoted(given) if isinstance(given, str) else f"candidate {index}"
