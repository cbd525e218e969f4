"""POST /v1/audit, the answer: the parts of every score, and what decides between candidates."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict

from app.schemas.decode import Strategy
from app.schemas.decode_response import CertificateReport
from app.schemas.diagnosis import Diagnosis
from app.schemas.error import ErrorObject
from app.schemas.response import BaseResponse, OmitNone, ResponseModel, TopLogprob, example
from app.schemas.score_response import BoundaryReport, Marginal


class AuditedToken(ResponseModel):
    """One scored token of a candidate."""

    id: int
    text: str
    """The token's bytes as UTF-8; bytes that are not valid alone show as U+FFFD."""
    start: OmitNone[int] = None
    """Where it begins, in bytes of context and candidate; absent as in /v1/score."""
    end: OmitNone[int] = None
    """Where it ends, exclusive."""
    logprob: float
    """The conditional: log P(token | everything before it)."""
    rank: OmitNone[int] = None
    """1 + the number of tokens that are strictly more probable here."""
    entropy: float
    """Of the whole distribution at this place, in nats: how open the model was."""
    cumulative: float
    """The log-probability of the candidate up to this token."""
    alternative: OmitNone[TopLogprob] = None
    """The most probable token here that is not this one; absent where the server lists none."""


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

    score: OmitNone[float] = None
    """Absent for a candidate without text per byte."""
    rank: OmitNone[int] = None
    """1 + the number of candidates with a higher score of this kind."""


class RankingView(ResponseModel):
    """The same numbers as a ranker sees them."""

    sum: RankedScore
    """The log-probability of the whole candidate."""
    mean: RankedScore
    """Per scored token: minus ``mean_nll``."""
    per_byte: RankedScore
    """Per UTF-8 byte of the candidate alone."""


class SplitToken(ResponseModel):
    """One token near the join."""

    id: int
    text: str


class PolicyScores(ResponseModel):
    """The candidate's log-probability under each policy; absent where that cannot score it."""

    joint: OmitNone[float] = None
    """Tokenized together with the context."""
    separate: OmitNone[float] = None
    """Tokenized alone."""
    marginal: OmitNone[Marginal] = None
    """Summed over every way to spell it, as far as a few token paths show: 64 of them, and as many
    more as the longest candidate has tokens."""


class CandidateJoin(ResponseModel):
    """How one candidate met the context."""

    own_start_token: int
    """So many leading tokens do the context alone and the context with the candidate share."""
    merged: bool
    """A token spans the context's end."""
    tokens: list[SplitToken]
    """The split of the request's own policy near the context's end: from the request's start on,
    at most 8 tokens before the end and 4 behind it."""
    policies: PolicyScores
    """Its score under every policy."""


class AuditedCandidate(ResponseModel):
    """One candidate, taken apart."""

    index: int
    """Place in the request's ``candidates``."""
    text: str
    """The candidate; of ids, the text that they stand for."""
    error: OmitNone[ErrorObject] = None
    """Why it could not be scored; everything below is then absent or empty."""
    training: OmitNone[TrainingView] = None
    """How training looks at it."""
    ranking: OmitNone[RankingView] = None
    """How ranking looks at it."""
    join: OmitNone[CandidateJoin] = None
    """How it met the context."""
    tokens: list[AuditedToken]
    """The scored tokens in order."""


class PositionDelta(ResponseModel):
    """One token of two candidates, side by side."""

    position: int
    """Counted from the first scored token, from 0."""
    better: OmitNone[str] = None
    """The better candidate's token there; absent where it has ended."""
    worse: OmitNone[str] = None
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
    position: OmitNone[int] = None
    """The token where the two part; absent where they do not."""
    ahead: OmitNone[float] = None
    """By how many nats the favourite is ahead after that token."""
    behind: OmitNone[float] = None
    """By how many nats it is behind in the end."""
    explanation: str
    """The same in words."""


class AuditedCompletion(ResponseModel):
    """What one search finds behind the same tokens."""

    strategy: Strategy
    """How it searched."""
    text: OmitNone[str] = None
    """What it found; absent where it found nothing."""
    token_ids: list[int]
    """All generated tokens."""
    logprob: OmitNone[float] = None
    """Their log-probability, an end token's included."""
    candidate: OmitNone[int] = None
    """The candidate of the same tokens, if there is one."""
    above_best_candidate: OmitNone[float] = None
    """By how many nats it is more probable than the best candidate."""
    search_error: OmitNone[float] = None
    """By how many nats it misses the proven optimum; absent where ``reason`` says why."""
    reason: OmitNone[str] = None
    """Why there is no ``search_error``."""


EXAMPLE_AUDIT: Final[dict[str, Any]] = example(
    id="audit-7a1b9c3d5e0f4826a4b2c6d8e0f1a3b5",
    object="audit",
    candidates=[
        {
            "index": 0,
            "text": " Paris",
            "training": {"labels": 1, "nll": 1.125, "mean_nll": 1.125},
            "ranking": {
                "sum": {"score": -1.125, "rank": 1},
                "mean": {"score": -1.125, "rank": 1},
                "per_byte": {"score": -0.1875, "rank": 1},
            },
            "join": {
                "own_start_token": 5,
                "merged": False,
                "tokens": [{"id": 7042, "text": " Paris"}],
                "policies": {"joint": -1.125, "separate": -1.125},
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
        }
    ],
    certificate={"optimal": True, "gap": 0.0, "upper_bound": -1.125, "expanded": 1},
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
    """Every score with its parts, and what would have been better."""

    object: Literal["audit"] = "audit"
    candidates: list[AuditedCandidate]
    """In the request's order."""
    views: str
    """Whether sum, mean and per-byte score agree about the order, and where they do not."""
    pairs: list[PairAudit]
    """The request's pairs; those of candidates that could not be scored are left out."""
    completions: list[AuditedCompletion]
    """Greedy, beam and exact search behind the tokens that the candidates are scored behind."""
    certificate: OmitNone[CertificateReport] = None
    """What the exact search has proven."""
    among_candidates: OmitNone[GreedyGap] = None
    """Choosing among the candidates token by token; absent for fewer than two."""
    among_completions: OmitNone[GreedyGap] = None
    """Greedy search against the best completion that was found; absent where either is missing."""
    boundary: BoundaryReport
    """Where context and candidates met."""
    diagnosis: OmitNone[Diagnosis] = None
    """What the ``reported`` numbers come from; absent unless there are any."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_AUDIT]})
