"""POST /v1/audit, the answer: the parts of every score, and checks that they are right."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict

from app.schemas.decode import Strategy
from app.schemas.decode_response import CertificateReport
from app.schemas.error import ErrorObject
from app.schemas.response import BaseResponse, ResponseModel, TopLogprob, example
from app.schemas.score_response import BoundaryReport

CheckName = Literal[
    "shifted_positions",
    "softmax_over_candidates",
    "doubled_special_tokens",
    "prompt_in_length",
    "token_by_token",
    "token_split",
    "full_vocabulary",
    "neighbours",
    "sums_and_ranks",
]


class AuditedToken(ResponseModel):
    """One scored token of a candidate."""

    id: int
    text: str
    """The token's bytes as UTF-8; bytes that are not valid alone show as U+FFFD."""
    start: int | None
    """Where it begins, in bytes of the context followed by the candidate; null as in /v1/score."""
    end: int | None
    """Where it ends, exclusive."""
    logprob: float
    """The conditional: log P(token | everything before it)."""
    rank: int | None
    """1 + the number of tokens that are strictly more probable here."""
    entropy: float | None
    """Of the whole distribution at this place, in nats: how open the model was. Null where
    ``token_split`` has found other tokens than the candidate's."""
    cumulative: float
    """The log-probability of the candidate up to this token."""
    alternative: TopLogprob | None
    """The most probable token here that is not this one."""


class TrainingView(ResponseModel):
    """What a training run would report of this candidate, the context masked."""

    labels: int
    """Tokens with a loss."""
    nll: float
    """Their negative log-likelihood, added up, in nats."""
    mean_nll: float
    """``nll / labels``: the ``loss`` of a Hugging Face model for the same labels."""


class RankedScore(ResponseModel):
    """A score and its place among the candidates."""

    score: float | None
    """Null for a candidate without text per byte."""
    rank: int | None
    """1 + the number of candidates with a higher score of this kind."""


class RankingView(ResponseModel):
    """The same numbers as a ranker sees them."""

    sum: RankedScore
    """The log-probability of the whole candidate."""
    mean: RankedScore
    """Per scored token: minus ``mean_nll``."""
    per_byte: RankedScore
    """Per UTF-8 byte of the candidate alone."""


class AuditedCandidate(ResponseModel):
    """One candidate, taken apart."""

    index: int
    """Place in the request's ``candidates``."""
    text: str
    """The candidate; of ids, the text that they stand for."""
    error: ErrorObject | None
    """Why it could not be scored; everything below is then null or empty."""
    training: TrainingView | None
    """How training looks at it."""
    ranking: RankingView | None
    """How ranking looks at it."""
    tokens: list[AuditedToken]
    """The scored tokens in order."""


class PositionDelta(ResponseModel):
    """One token of two candidates, side by side."""

    position: int
    """Counted from the first scored token, from 0."""
    better: str | None
    """The better candidate's token there; null where it has ended."""
    worse: str | None
    """The other one's."""
    gain: float
    """By how many nats the better one's token is the more probable one."""
    lead: float
    """By how many nats the better one leads after this token; negative where it is behind."""


class PairAudit(ResponseModel):
    """Two candidates, token by token."""

    better: int
    """Index of the one with the higher sum."""
    worse: int
    """Index of the other."""
    difference: float
    """By how many nats the sums differ."""
    lead_changes: list[PositionDelta]
    """Tokens after which another candidate leads than before."""
    deciding: PositionDelta
    """The token that gains the better one most."""
    lead_without: float
    """By how many nats the better one would lead without that token."""
    explanation: str
    """The same in words."""


class GreedyGap(ResponseModel):
    """What is chosen token by token, against what has the largest total."""

    favourite: str
    """Reached by taking the most probable token at each step."""
    best: str
    """The one with the largest log-probability that is known."""
    loses: bool
    """The favourite is not the best."""
    position: int | None
    """The token where the two part; null where they do not."""
    ahead: float | None
    """By how many nats the favourite is ahead after that token."""
    behind: float | None
    """By how many nats it is behind in the end."""
    explanation: str
    """The same in words."""


class AuditedCompletion(ResponseModel):
    """What one search finds behind the same tokens."""

    strategy: Strategy
    """How it searched."""
    text: str | None
    """What it found; null where it found nothing."""
    token_ids: list[int]
    """All generated tokens."""
    logprob: float | None
    """Their log-probability, an end token's included."""
    candidate: int | None
    """The candidate of the same tokens, if there is one."""
    above_best_candidate: float | None
    """By how many nats it is more probable than the best candidate."""
    search_error: float | None
    """By how many nats it misses the proven optimum; null where ``reason`` says why."""
    reason: str | None
    """Why there is no ``search_error``."""


class Check(ResponseModel):
    """A mistake that scoring is prone to, looked for in this very answer."""

    name: CheckName
    """What was looked for."""
    passed: bool | None
    """Null where it could not be looked for; ``detail`` says why."""
    detail: str
    """What was found, with its numbers."""
    measured: dict[str, float]
    """The numbers alone."""


EXAMPLE_AUDIT: Final[dict[str, Any]] = example(
    id="audit-7a1b9c3d5e0f4826a4b2c6d8e0f1a3b5",
    object="audit",
    passed=True,
    checks=[
        {
            "name": "prompt_in_length",
            "passed": True,
            "detail": "all 1 candidates are divided by their own tokens, bytes and characters",
            "measured": {"counted": 1.0, "expected": 1.0, "context_tokens": 5.0},
        }
    ],
    candidates=[
        {
            "index": 0,
            "text": " Paris",
            "error": None,
            "training": {"labels": 1, "nll": 1.125, "mean_nll": 1.125},
            "ranking": {
                "sum": {"score": -1.125, "rank": 1},
                "mean": {"score": -1.125, "rank": 1},
                "per_byte": {"score": -0.1875, "rank": 1},
            },
            "tokens": [
                {
                    "id": 7042,
                    "text": " Paris",
                    "start": 24,
                    "end": 30,
                    "logprob": -1.125,
                    "rank": 1,
                    "entropy": 3.25,
                    "cumulative": -1.125,
                    "alternative": {"id": 260, "text": " the", "logprob": -2.5},
                }
            ],
        }
    ],
    views="sum, mean and per_byte rank the 1 candidates alike",
    pairs=[],
    completions=[
        {
            "strategy": "greedy",
            "text": " Paris",
            "token_ids": [7042],
            "logprob": -1.125,
            "candidate": 0,
            "above_best_candidate": 0.0,
            "search_error": 0.0,
            "reason": None,
        }
    ],
    certificate={"optimal": True, "gap": 0.0, "upper_bound": -1.125, "expanded": 1},
    among_candidates=None,
    among_completions=None,
    boundary={
        "policy": "joint",
        "start_token": 5,
        "shift_bytes": 0,
        "context_tokens": 5,
        "bos_added": False,
    },
    usage={
        "prompt_tokens": 5,
        "scored_tokens": 1,
        "cached_tokens": 20,
        "computed_tokens": 40,
        "reused_scores": 0,
    },
)


class AuditResponse(BaseResponse):
    """Every score with its parts, what would have been better, and what was checked."""

    object: Literal["audit"] = "audit"
    passed: bool
    """No check has failed."""
    checks: list[Check]
    """Each mistake that was looked for."""
    candidates: list[AuditedCandidate]
    """In the request's order."""
    views: str
    """Whether sum, mean and per-byte score agree about the order, and where they do not."""
    pairs: list[PairAudit]
    """The request's pairs; those of candidates that could not be scored are left out."""
    completions: list[AuditedCompletion]
    """Greedy, beam and exact search behind the tokens that the candidates are scored behind."""
    certificate: CertificateReport | None
    """What the exact search has proven."""
    among_candidates: GreedyGap | None
    """Choosing among the candidates token by token; null for fewer than two."""
    among_completions: GreedyGap | None
    """Greedy search against the best completion that was found; null where either is missing."""
    boundary: BoundaryReport

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_AUDIT]})
