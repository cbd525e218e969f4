"""What POST /v1/score answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict

from app.schemas.error import ErrorObject
from app.schemas.response import BaseResponse, ResponseModel, TokenDetail, example

if TYPE_CHECKING:
    from model_runtime import Join

BoundaryPolicy = Literal["joint", "separate", "marginal"]


class Marginal(ResponseModel):
    """The log-probability that the continuation's bytes begin with the candidate."""

    lower: float
    """Summed over the token paths that were finished."""
    upper: float
    """The same with every path that was not."""
    exact: bool
    """What was not finished is below 2^-32 of what was: the two agree to 1e-9."""
    expanded: int
    """Token paths that the model was asked about."""
    normalized: str | None
    """The candidate as the tokenizer's normalizer writes it (in NFC, for example), whose bytes were
    summed; null where that is the candidate itself. Every policy scores this text."""


class SplitToken(ResponseModel):
    """One token near the join."""

    id: int
    text: str


class PolicyScores(ResponseModel):
    """The candidate's log-probability under each policy; null where it cannot be scored."""

    joint: float | None
    separate: float | None
    marginal: Marginal | None


class CandidateJoin(ResponseModel):
    """How one candidate met the context."""

    own_start: int
    """So many leading tokens do the context alone and the context with the candidate share."""
    merged: bool
    """A token spans the context's end."""
    tokens: list[SplitToken]
    """The split of the request's own policy (of ``joint`` under ``marginal``) near the context's
    end: from the request's start on, at most 8 tokens before the end and 4 behind it."""
    policies: PolicyScores


class CandidateScore(ResponseModel):
    """One candidate's result. Where ``error`` is given, every number is null."""

    index: int
    """Place in the request's ``candidates``."""
    rank: int | None
    """1 + the number of candidates with a higher score. Null behind the cut of ``top_n``."""
    tie_group: int | None
    """Candidates that share a number, from 1 for the best, cannot be told apart within numeric
    error. Null for a candidate that stands alone, and where the error is not known."""
    score: float | None
    """The log-probability under ``normalization``."""
    numeric_error: float | None
    """What the score may be off by: the largest error of a token in the response's
    ``numeric_error``, added up and carried through the normalization. An estimate."""
    logprob: float | None
    """The raw sum: log P(candidate | context)."""
    token_count: int | None
    """Scored tokens, the context's tail and the end included."""
    tail_tokens: int | None
    """Scored tokens that lie wholly inside the context's end."""
    mean_logprob: float | None
    """``logprob / token_count``."""
    logprob_per_char: float | None
    """``logprob`` per Unicode code point of the candidate alone; null if it has none."""
    logprob_per_byte: float | None
    """``logprob`` per UTF-8 byte of the candidate alone; null if it has none."""
    baseline_logprob: float | None
    """What ``pmi`` or ``calibrated`` subtracts; null for the others."""
    perplexity: float | None
    """``exp(-mean_logprob)``; null where that is beyond the largest float."""
    probability: float | None
    """Softmax of ``score / temperature`` over the candidates that could be scored. Null where one
    was not scored to the end."""
    probability_bounds: tuple[float, float] | None
    """Where ``probability`` lies, the candidates that ``top_n`` left unfinished included."""
    greedy: bool | None
    """Every scored token is the most probable one at its place."""
    prefix_of: list[int]
    """Candidates whose token path this one begins: it is never less probable than they are, unless
    an end is appended."""
    bound: float | None
    """Where ``top_n`` left the candidate unfinished: its score is not above this."""
    marginal: Marginal | None
    """Under ``boundary`` ``marginal``; ``logprob`` is then its ``lower``."""
    join: CandidateJoin | None
    """How it met the context; null unless asked for."""
    error: ErrorObject | None
    """Why this candidate could not be scored."""
    tokens: list[TokenDetail] | None
    """The scored tokens in order; null unless asked for. The entry that ``append_eos`` adds names
    the likeliest end token and carries the log of the summed probability of all of them."""


class BoundaryReport(ResponseModel):
    """Where context and candidates met."""

    policy: BoundaryPolicy
    start_token: int
    """Position of the first scored token: so many tokens every candidate is conditional on."""
    shift_bytes: int
    """Bytes of the context that lie after the start."""
    context_tokens: int
    """Tokens of the context, with what was put before it."""
    bos_added: bool
    """The tokenizer's own rule or ``add_bos`` put tokens before the context: BOS, or whatever the
    rule puts there."""

    @classmethod
    def of(cls, joined: Join) -> BoundaryReport:
        """What the runtime says of a join."""
        return cls(
            policy=joined.policy.value,
            start_token=joined.start_token,
            shift_bytes=joined.shift_bytes,
            context_tokens=joined.context_tokens,
            bos_added=joined.bos_added,
        )


class TopReport(ResponseModel):
    """What ``top_n`` did."""

    requested: int
    ranked: int
    """As many as were requested, and all that are tied with the last of them."""
    pruned: int
    """Candidates that were not scored to the end."""
    certified: bool
    """None of the pruned can be among the ranked, up to the numeric error. False where the time ran
    out first: then the ranked are the best of what was scored."""
    search: Literal["best_first", "all"]
    """``all``: everything was scored, as ``pmi`` and ``calibrated`` have no bound."""
    asked: int | None
    """Token paths that the search asked about; null where it was not needed."""


class RankedColumns(ResponseModel):
    """Ranked candidates, best first; every column has an entry for each."""

    index: list[int]
    rank: list[int]
    tie_group: list[int | None]
    score: list[float]
    logprob: list[float]
    numeric_error: list[float | None]
    probability: list[float | None]
    probability_bounds: list[tuple[float, float] | None]


class UnrankedColumns(ResponseModel):
    """Candidates behind the cut of ``top_n`` that were scored to the end."""

    index: list[int]
    score: list[float]


class PrunedColumns(ResponseModel):
    """Candidates that were not scored to the end."""

    index: list[int]
    bound: list[float]
    """The score is not above it."""


class FailedColumns(ResponseModel):
    """Candidates that could not be scored."""

    index: list[int]
    code: list[str]
    message: list[str]


class CompactScores(ResponseModel):
    """All candidates, a column for each number."""

    ranked: RankedColumns
    unranked: UnrankedColumns
    pruned: PrunedColumns
    failed: FailedColumns


class ScoreResponse(BaseResponse):
    """Results in the order of the request's candidates."""

    object: Literal["score"] = "score"
    results: list[CandidateScore]
    """Empty where ``compact`` was asked for."""
    compact: CompactScores | None
    """Null unless asked for."""
    top: TopReport | None
    """What ``top_n`` did; null without it."""
    off_candidate_mass: float | None
    """1 minus the summed probability of the distinct candidates: what the model gives to all else.
    Null where a candidate's path begins another's, where the start lies before the context's end,
    and where a candidate was not scored to the end."""
    off_candidate_mass_bounds: tuple[float, float] | None
    """Where it lies, if only unfinished candidates keep it from being known."""
    boundary: BoundaryReport

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                example(
                    id="score-3f6d2b8c1a9e4d57b0c2f4a68e1d7b93",
                    object="score",
                    results=[
                        {
                            "index": 0,
                            "rank": 1,
                            "tie_group": None,
                            "score": -1.125,
                            "numeric_error": 1e-5,
                            "logprob": -1.125,
                            "token_count": 1,
                            "tail_tokens": 0,
                            "mean_logprob": -1.125,
                            "logprob_per_char": -0.1875,
                            "logprob_per_byte": -0.1875,
                            "baseline_logprob": None,
                            "perplexity": 3.080216848918031,
                            "probability": 1.0,
                            "probability_bounds": None,
                            "greedy": True,
                            "prefix_of": [],
                            "bound": None,
                            "marginal": None,
                            "join": None,
                            "error": None,
                            "tokens": None,
                        }
                    ],
                    compact=None,
                    top=None,
                    off_candidate_mass=0.6753475326416503,
                    off_candidate_mass_bounds=None,
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
                        "cached_tokens": 0,
                        "computed_tokens": 5,
                        "reused_scores": 0,
                    },
                )
            ]
        }
    )
