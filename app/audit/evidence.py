"""What the service answered about one audit's candidates. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.requests.prompt import Prompt
from app.schemas.audit import AuditRequest
from app.schemas.decode_response import DecodeResponse
from app.schemas.response import Usage
from app.schemas.score_response import CandidateScore, ScoreResponse
from model_runtime import Tokenizer


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that an audit is made of.

    Attributes:
        request: what is audited.
        tokenizer: the model's.
        prompt: the context.
        before: its tokens, with what stands before them.
        scores: what /v1/score says, tokens listed.
        by_policy: results of the same candidates by policy; a policy that can score none of them
            has none.
        entropies: of each scored token's distribution, in nats, by candidate that was scored.
        decoded: what the three searches find.
        usage: what all of it cost together.
    """

    request: AuditRequest
    tokenizer: Tokenizer
    prompt: Prompt
    before: tuple[int, ...]
    scores: ScoreResponse
    by_policy: Mapping[str, Sequence[CandidateScore]]
    entropies: Mapping[int, Sequence[float]]
    decoded: DecodeResponse
    usage: Usage

    @property
    def scored(self) -> list[CandidateScore]:
        """The candidates that could be scored."""
        return scored_of(self.scores)


def scored_of(scores: ScoreResponse) -> list[CandidateScore]:
    """The candidates that could be scored."""
    return [result for result in scores.results if result.error is None]


def sum_of(result: CandidateScore) -> float:
    """The log-probability of a candidate that could be scored."""
    if result.logprob is None:
        raise RuntimeError("this is a bug: a candidate without an error has no log-probability")
    return result.logprob
