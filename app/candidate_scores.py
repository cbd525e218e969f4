"""POST /v1/score, second half: the model's answers to scores, ranks and token entries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from app.errors import error_object
from app.schemas.response import TokenDetail
from app.schemas.score import CandidateScore
from app.scored_candidate import ScoredCandidate
from app.scoring import PlannedCandidate, ScorePlan, located, refuse_failures
from app.token_details import Span, path_bytes, token_details
from model_runtime import (
    ChainruleError,
    LogprobResult,
    ModelInfo,
    NonFiniteLogits,
    Normalization,
    Tokenizer,
    competition_ranks,
    off_mass,
    perplexity,
    prefix_of,
    probabilities,
    tie_groups,
    total,
)

Outcome = ScoredCandidate | ChainruleError


class TokenEntries:
    """The scored tokens of one request's candidates, as the response lists them.

    Args:
        tokenizer: whose ids they are.
        plan: gives the bytes before the first scored token.
    """

    def __init__(self, tokenizer: Tokenizer, plan: ScorePlan) -> None:
        self._tokenizer = tokenizer
        context = plan.prompt.content_bytes(tokenizer)
        self._begin = len(context) - plan.joined.shift_bytes
        self._tail = context[self._begin :]

    def of(self, scored: ScoredCandidate) -> list[TokenDetail]:
        """One entry for each scored token of a candidate."""
        return token_details(
            self._tokenizer,
            scored.token_ids,
            self._spans(scored),
            scored.logprobs,
            scored.ranks,
            scored.top,
        )

    def _spans(self, scored: ScoredCandidate) -> list[Span]:
        """In the bytes of context + candidate; an appended end stands behind them, empty."""
        path = scored.planned.token_ids
        text = self._tail + scored.planned.content
        if path_bytes(self._tokenizer, path) != text:
            return [(None, None)] * len(scored.token_ids)
        end = self._begin + len(text)
        spans = self._tokenizer.byte_offsets(path, self._begin)
        return [*spans, *[(end, end)] * (len(scored.token_ids) - len(path))]


def candidate_scores(
    tokenizer: Tokenizer,
    info: ModelInfo,
    plan: ScorePlan,
    answers: Sequence[LogprobResult | ChainruleError],
) -> list[CandidateScore]:
    """Results in the order of the request's candidates.

    Raises:
        ChainruleError: nothing could be scored, or something could not be and the request is
            all or nothing.
    """
    outcomes = list(_outcomes(plan, answers))
    refuse_failures(outcomes, plan.request.all_or_nothing)
    comparison = Comparison.of(outcomes, plan, info)
    entries = TokenEntries(tokenizer, plan) if plan.request.lists_tokens else None
    return [
        _failed(index, outcome)
        if isinstance(outcome, ChainruleError)
        else _scored(index, outcome, comparison, entries)
        for index, outcome in enumerate(outcomes)
    ]


def off_candidate_mass(plan: ScorePlan, results: Sequence[CandidateScore]) -> float | None:
    """What the model gives to everything but the candidates that were scored.

    None where that is not 1 minus their sum: see ``ScoreResponse``.
    """
    if plan.joined.shift_bytes:
        return None
    # With an end behind it no path begins another one.
    end = (-1,) if plan.request.append_eos else ()
    paths = {
        candidate.token_ids + end: result.logprob
        for candidate, result in zip(plan.candidates, results, strict=True)
        if isinstance(candidate, PlannedCandidate) and result.logprob is not None
    }
    return off_mass(paths)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What depends on all candidates of a request; one entry for each."""

    scores: list[float | None]
    ranks: list[int | None]
    probabilities: list[float | None]
    errors: list[float | None]
    tie_groups: list[int | None]
    prefix_of: list[tuple[int, ...]]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], plan: ScorePlan, info: ModelInfo) -> Comparison:
        """Compare the candidates that could be scored."""
        kind = Normalization(plan.request.normalization)
        scores = [None if isinstance(o, ChainruleError) else o.score(kind) for o in outcomes]
        errors = _errors(outcomes, kind, info)
        return cls(
            scores,
            competition_ranks(scores),
            probabilities(scores, plan.request.temperature),
            errors,
            _tie_groups(scores, errors, info),
            # With an end behind it no path begins another one.
            [()] * len(outcomes) if plan.request.append_eos else _prefix_of(outcomes),
        )


def _outcomes(
    plan: ScorePlan, answers: Sequence[LogprobResult | ChainruleError]
) -> Iterator[Outcome]:
    rest = iter(answers)
    for index, candidate in enumerate(plan.candidates):
        if isinstance(candidate, ChainruleError):
            yield candidate
        else:
            asked = islice(rest, len(candidate.queries))
            yield _outcome(index, candidate, list(asked), plan.request.alpha)


def _outcome(
    index: int,
    candidate: PlannedCandidate,
    answers: Sequence[LogprobResult | ChainruleError],
    alpha: float,
) -> Outcome:
    results: list[LogprobResult] = []
    for answer in answers:
        if isinstance(answer, ChainruleError):
            return located(answer, index)
        results.append(answer)
    try:
        return ScoredCandidate.read(candidate, results[0], results[1:], alpha)
    except NonFiniteLogits as error:
        return error


def _errors(
    outcomes: Sequence[Outcome], kind: Normalization, info: ModelInfo
) -> list[float | None]:
    """Of each score; None where it is not known."""
    if info.numeric_error is None:
        return [None] * len(outcomes)
    largest = info.numeric_error[0]
    return [None if isinstance(o, ChainruleError) else o.error(largest, kind) for o in outcomes]


def _tie_groups(
    scores: list[float | None], errors: list[float | None], info: ModelInfo
) -> list[int | None]:
    if info.numeric_error is None:
        return [None] * len(scores)
    return tie_groups(scores, [error or 0.0 for error in errors])


def _prefix_of(outcomes: Sequence[Outcome]) -> list[tuple[int, ...]]:
    return prefix_of([None if isinstance(o, ChainruleError) else o.token_ids for o in outcomes])


def _scored(
    index: int, scored: ScoredCandidate, comparison: Comparison, entries: TokenEntries | None
) -> CandidateScore:
    spread = perplexity(scored.logprobs)
    return CandidateScore(
        index=index,
        rank=comparison.ranks[index],
        tie_group=comparison.tie_groups[index],
        score=comparison.scores[index],
        numeric_error=comparison.errors[index],
        logprob=total(scored.logprobs),
        token_count=len(scored.logprobs),
        tail_tokens=scored.planned.tail_tokens,
        mean_logprob=scored.score(Normalization.MEAN),
        logprob_per_char=scored.score_if_text(Normalization.PER_CHAR),
        logprob_per_byte=scored.score_if_text(Normalization.PER_BYTE),
        baseline_logprob=scored.baseline,
        perplexity=spread if math.isfinite(spread) else None,
        probability=comparison.probabilities[index],
        greedy=all(rank == 1 for rank in scored.ranks),
        prefix_of=list(comparison.prefix_of[index]),
        error=None,
        tokens=None if entries is None else entries.of(scored),
    )


def _failed(index: int, error: ChainruleError) -> CandidateScore:
    return CandidateScore(
        index=index,
        rank=None,
        tie_group=None,
        score=None,
        numeric_error=None,
        logprob=None,
        token_count=None,
        tail_tokens=None,
        mean_logprob=None,
        logprob_per_char=None,
        logprob_per_byte=None,
        baseline_logprob=None,
        perplexity=None,
        probability=None,
        greedy=None,
        prefix_of=[],
        error=error_object(error),
        tokens=None,
    )
