"""The parts of a ``ScoreResponse`` that the candidates decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors.table import error_object
from app.requests.token_details import Span, path_bytes, token_details
from app.requests.worker_threads import check_wanted
from app.schemas.receipt import Receipt
from app.schemas.response import TokenDetail
from app.schemas.score_response import (
    CandidateScore,
    CompactScores,
    ScoreWarning,
    TopReport,
    beginnings,
)
from app.scoring.candidate_results import Answers, CandidateResult, candidate_results
from app.scoring.compact import compact_scores
from app.scoring.plan import ScorePlan
from app.scoring.ranking import CandidateRanking, off_candidate_mass
from app.scoring.receipt import build_receipt
from app.scoring.scored_candidate import ScoredCandidate
from app.scoring.top_n import top_report
from model_runtime import (
    ChainruleError,
    ModelInfo,
    Normalization,
    Pruned,
    Tokenizer,
    TopResult,
    prefix_of,
)


@dataclass(frozen=True, slots=True)
class ScoreBody:
    """See ``ScoreResponse`` for all but ``scored_tokens``: those that log-probs were read of."""

    results: list[CandidateScore]
    scored_tokens: int
    off_candidate_mass: float | None
    off_candidate_mass_bounds: tuple[float, float] | None
    compact: CompactScores | None = None
    top: TopReport | None = None
    receipt: Receipt | None = None
    warnings: Sequence[ScoreWarning] = ()


def build_scores(
    tokenizer: Tokenizer, info: ModelInfo, plan: ScorePlan, answers: Answers
) -> ScoreBody:
    """The model's answers as the response shows them.

    Raises:
        ChainruleError: nothing could be scored, or something could not be and the request is
            all or nothing.
    """
    outcomes = candidate_results(plan, answers)
    ranking = CandidateRanking.of(outcomes, plan, info)
    compact = plan.request.compact
    mass = off_candidate_mass(plan, outcomes)
    found = answers if isinstance(answers, TopResult) else None
    results = [] if compact else candidate_scores(tokenizer, plan, outcomes, ranking)
    return ScoreBody(
        results=results,
        compact=compact_scores(outcomes, ranking) if compact else None,
        top=top_report(plan.request, len(ranking.best), found),
        off_candidate_mass=mass if isinstance(mass, float) else None,
        off_candidate_mass_bounds=mass if isinstance(mass, tuple) else None,
        scored_tokens=sum(len(o.logprobs) for o in outcomes if isinstance(o, ScoredCandidate)),
        receipt=build_receipt(info, plan, outcomes) if plan.request.receipt else None,
        warnings=[*_missing_spaces(plan, answers), *beginnings(results)],
    )


def _missing_spaces(plan: ScorePlan, answers: Answers) -> list[ScoreWarning]:
    if plan.spaces is None or isinstance(answers, TopResult):
        return []
    return plan.spaces.warnings(answers[-plan.queries_beside :])


class TokenDetailBuilder:
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
    plan: ScorePlan,
    outcomes: Sequence[CandidateResult],
    ranking: CandidateRanking,
) -> list[CandidateScore]:
    """Every candidate in full, in the request's order."""
    entries = TokenDetailBuilder(tokenizer, plan) if plan.request.lists_tokens else None
    begun = prefix_of(plan.open_paths)
    return [
        _scored(index, outcome, plan, ranking, begun[index], entries)
        if isinstance(outcome, ScoredCandidate)
        else failed_or_pruned(index, outcome, begun[index])
        for index, outcome in enumerate(outcomes)
    ]


def _scored(
    index: int,
    scored: ScoredCandidate,
    plan: ScorePlan,
    ranking: CandidateRanking,
    begun: Sequence[int],
    entries: TokenDetailBuilder | None,
) -> CandidateScore:
    check_wanted()
    per_char = plan.request.normalization == "per_char"
    return CandidateScore(
        index=index,
        rank=ranking.ranks[index],
        score=ranking.scores[index],
        logprob=scored.logprob,
        token_count=len(scored.logprobs),
        mean_logprob=scored.score(Normalization.MEAN),
        logprob_per_byte=scored.score_if_text(Normalization.PER_BYTE),
        probability=ranking.probabilities[index],
        greedy=all(rank == 1 for rank in scored.ranks),
        numeric_error=ranking.errors[index],
        tie_group=ranking.tie_groups[index],
        tail_tokens=scored.planned.tail_tokens,
        logprob_per_char=ranking.scores[index] if per_char else None,
        baseline_logprob=scored.baseline,
        probability_bounds=ranking.probability_bounds[index],
        prefix_of=list(begun),
        tokens=None if entries is None else entries.of(scored),
    )


def failed_or_pruned(
    index: int, outcome: Pruned | ChainruleError, begun: Sequence[int] = ()
) -> CandidateScore:
    """A candidate without a score: its bound, or why it failed; ``begun`` are those it begins."""
    if isinstance(outcome, ChainruleError):
        return CandidateScore(index=index, error=error_object(outcome))
    return CandidateScore(index=index, prefix_of=list(begun), bound=outcome.bound)
