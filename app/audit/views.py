"""The same log-probabilities as training reports them, and as rankings use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from app.audit.evidence import Evidence, sum_of
from app.audit.joins import candidate_join
from app.audit.wording import count_of, quoted
from app.requests.token_details import path_bytes
from app.schemas.audit_response import (
    AuditedCandidate,
    AuditedToken,
    RankedScore,
    RankingView,
    TrainingView,
)
from app.schemas.response import TokenDetail, TopLogprob
from app.schemas.score_response import CandidateScore
from model_runtime import competition_ranks, total

KINDS = ("sum", "mean", "per_byte")
"""Ways to rank, in the order of ``RankingView``."""


def audited_candidates(evidence: Evidence) -> list[AuditedCandidate]:
    """Every candidate taken apart, in the request's order."""
    results = evidence.scores.results
    placed = {kind: _placed(results, kind) for kind in KINDS}
    return [
        AuditedCandidate(
            index=one.index,
            text=text_of(evidence, one.index),
            error=one.error,
            training=_training(one),
            ranking=_ranking(one, placed),
            tokens=_tokens(evidence, one),
            join=candidate_join(evidence, one.index) if one.error is None else None,
        )
        for one in results
    ]


def views(evidence: Evidence) -> str:
    """Whether the ways to rank agree with the sum, and of whom they say otherwise."""
    found = [_disagreement(evidence, kind) for kind in KINDS[1:]]
    shown = [words for words in found if words is not None]
    alike = f"sum, mean and per_byte rank the {count_of(len(evidence.scored), 'candidate')} alike"
    return "; ".join(shown) or alike


def _disagreement(evidence: Evidence, kind: str) -> str | None:
    """The first two candidates, by the sum, that ``kind`` puts the other way round."""
    ranked = sorted(evidence.scored, key=lambda one: -sum_of(one))
    for one, other in combinations(ranked, 2):
        mine, theirs = _score(one, kind), _score(other, kind)
        if mine is None or theirs is None or mine >= theirs:
            continue
        names = [quoted(text_of(evidence, each.index)) for each in (one, other)]
        sizes = [_size(evidence, each, kind) for each in (one, other)]
        return (
            f"sum puts {names[0]} ({sum_of(one):.6g}) before {names[1]} ({sum_of(other):.6g}), "
            f"{kind} the other way round: over {sizes[0]} it has {mine:.6g}, the other over "
            f"{sizes[1]} {theirs:.6g}"
        )
    return None


def _size(evidence: Evidence, one: CandidateScore, kind: str) -> str:
    if kind == "mean":
        return count_of(one.token_count or 0, "token")
    return count_of(len(_content(evidence, one.index)), "byte")


def text_of(evidence: Evidence, index: int) -> str:
    """A candidate as text; one of ids that could not be scored has none."""
    return _content(evidence, index).decode(errors="replace")


def _content(evidence: Evidence, index: int) -> bytes:
    given = evidence.request.candidates[index]
    if isinstance(given, str):
        return given.encode()
    is_scored = evidence.scores.results[index].error is None
    return path_bytes(evidence.tokenizer, given) if is_scored else b""


def _placed(results: Sequence[CandidateScore], kind: str) -> list[RankedScore]:
    scores = [_score(one, kind) for one in results]
    ranks = competition_ranks(scores)
    return [RankedScore(score=score, rank=rank) for score, rank in zip(scores, ranks, strict=True)]


def _score(one: CandidateScore, kind: str) -> float | None:
    return {"sum": one.logprob, "mean": one.mean_logprob, "per_byte": one.logprob_per_byte}[kind]


def _ranking(
    one: CandidateScore, placed: Mapping[str, Sequence[RankedScore]]
) -> RankingView | None:
    if one.error is not None:
        return None
    return RankingView(
        sum=placed["sum"][one.index],
        mean=placed["mean"][one.index],
        per_byte=placed["per_byte"][one.index],
    )


def _training(one: CandidateScore) -> TrainingView | None:
    """From the listed tokens, as a loss would be: not from what the ranking divides."""
    if one.error is not None or not one.tokens:
        return None
    nll = -total([token.logprob for token in one.tokens])
    return TrainingView(labels=len(one.tokens), nll=nll, mean_nll=nll / len(one.tokens))


def _tokens(evidence: Evidence, one: CandidateScore) -> list[AuditedToken]:
    tokens = one.tokens or []
    return [
        AuditedToken(
            id=token.id,
            text=token.text,
            start=token.start,
            end=token.end,
            logprob=token.logprob,
            rank=token.rank,
            entropy=evidence.entropies[one.index][place],
            cumulative=total([each.logprob for each in tokens[: place + 1]]),
            alternative=_alternative(token),
        )
        for place, token in enumerate(tokens)
    ]


def _alternative(token: TokenDetail) -> TopLogprob | None:
    return next((other for other in token.top_logprobs if other.id != token.id), None)
