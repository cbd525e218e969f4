"""The parts of a ``ScoreResponse`` that the candidates decide."""

from __future__ import annotations

from dataclasses import dataclass

from app.candidate_ranking import CandidateRanking, off_candidate_mass
from app.candidate_scores import candidate_scores
from app.compact_scores import compact_scores
from app.outcomes import Answers, read_outcomes
from app.schemas.score_reply import CandidateScore, CompactScores, TopReport
from app.scored_candidate import ScoredCandidate
from app.scoring import ScorePlan
from app.top_search import top_report
from model_runtime import ModelInfo, Tokenizer, TopResult


@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """See ``ScoreResponse`` for all but ``scored_tokens``: those that log-probs were read of."""

    results: list[CandidateScore]
    compact: CompactScores | None
    top: TopReport | None
    off_candidate_mass: float | None
    off_candidate_mass_bounds: tuple[float, float] | None
    scored_tokens: int


def read_scores(
    tokenizer: Tokenizer, info: ModelInfo, plan: ScorePlan, answers: Answers
) -> ScoreAnswer:
    """The model's answers as the response shows them.

    Raises:
        ChainruleError: nothing could be scored, or something could not be and the request is
            all or nothing.
    """
    outcomes = read_outcomes(plan, answers)
    ranking = CandidateRanking.of(outcomes, plan, info)
    compact = plan.request.compact
    mass = off_candidate_mass(plan, outcomes)
    found = answers if isinstance(answers, TopResult) else None
    return ScoreAnswer(
        results=[] if compact else candidate_scores(tokenizer, plan, outcomes, ranking),
        compact=compact_scores(outcomes, ranking) if compact else None,
        top=top_report(plan.request, len(ranking.best), found),
        off_candidate_mass=mass if isinstance(mass, float) else None,
        off_candidate_mass_bounds=mass if isinstance(mass, tuple) else None,
        scored_tokens=sum(len(o.logprobs) for o in outcomes if isinstance(o, ScoredCandidate)),
    )
