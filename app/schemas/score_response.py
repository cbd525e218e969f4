"""What POST /v1/score answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import ConfigDict, Field

from app.schemas.error import ErrorObject
from app.schemas.receipt import Receipt
from app.schemas.response import (
    BaseResponse,
    OmitEmpty,
    OmitNone,
    ResponseModel,
    TokenDetail,
    example,
)

WARNED_CANDIDATES = 64
"""So many candidates, the first ones, are looked at for warnings."""

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
    normalized: OmitNone[str] = None
    """The candidate as the tokenizer's normalizer writes it (in NFC, for example), whose bytes were
    summed; absent where that is the candidate itself. Every policy scores this text."""


class CandidateScore(ResponseModel):
    """One candidate's result. Each has an index; a scored one has the numbers down to
    ``numeric_error``, and what stands below only where there is such a thing. One that failed has
    its ``error`` alone, one that ``top_n`` left unfinished its ``bound``."""

    index: int
    """Place in the request's ``candidates``."""
    rank: OmitNone[int] = None
    """1 + the number of candidates with a higher score. Absent behind the cut of ``top_n``."""
    score: OmitNone[float] = None
    """The log-probability under ``normalization``."""
    logprob: OmitNone[float] = None
    """The raw sum: log P(candidate | context)."""
    token_count: OmitNone[int] = None
    """Scored tokens, the context's tail and the end included."""
    mean_logprob: OmitNone[float] = None
    """``logprob / token_count``."""
    logprob_per_byte: OmitNone[float] = None
    """``logprob`` per UTF-8 byte of the candidate alone; absent if it has none."""
    probability: OmitNone[float] = None
    """Softmax of ``score / temperature`` over the candidates that could be scored. Absent where one
    was not scored to the end."""
    greedy: OmitNone[bool] = None
    """Every scored token is the most probable one at its place."""
    numeric_error: OmitNone[float] = None
    """What the score may be off by: the largest error of a token in the response's
    ``numeric_error``, added up and carried through the normalization. An estimate."""
    tie_group: OmitNone[int] = None
    """Candidates that share a number, from 1 for the best, cannot be told apart within numeric
    error. Absent for a candidate that stands alone, and where the error is not known."""
    tail_tokens: OmitEmpty[int] = 0
    """Scored tokens that lie wholly inside the context's end; absent where there are none."""
    logprob_per_char: OmitNone[float] = None
    """``logprob`` per Unicode code point of the candidate alone; absent unless ``normalization`` is
    ``per_char``."""
    baseline_logprob: OmitNone[float] = None
    """What ``pmi`` or ``calibrated`` subtracts; absent for the others."""
    probability_bounds: OmitNone[tuple[float, float]] = None
    """Where ``probability`` lies, the candidates that ``top_n`` left unfinished included; absent
    where it is known."""
    prefix_of: OmitEmpty[list[int]] = Field(default_factory=list)
    """Candidates whose token path this one begins: it is never less probable than they are, unless
    an end is appended. Absent where there are none."""
    bound: OmitNone[float] = None
    """Where ``top_n`` left the candidate unfinished: its score is not above this."""
    marginal: OmitNone[Marginal] = None
    """Under ``boundary`` ``marginal``; ``logprob`` is then its ``lower``."""
    error: OmitNone[ErrorObject] = None
    """Why this candidate could not be scored."""
    tokens: OmitNone[list[TokenDetail]] = None
    """The scored tokens in order; absent unless asked for. The entry that ``append_eos`` adds names
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
    expanded: OmitNone[int] = None
    """Token paths that the search asked about; absent where it was not needed."""


class RankedColumns(ResponseModel):
    """Ranked candidates, best first; every column that is there has an entry for each."""

    index: list[int]
    rank: list[int]
    tie_group: OmitNone[list[int | None]] = None
    """Null for a candidate that stands alone; absent where all do."""
    score: list[float]
    logprob: list[float]
    numeric_error: OmitNone[list[float]] = None
    probability: OmitNone[list[float]] = None
    probability_bounds: OmitNone[list[tuple[float, float]]] = None


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
    """All candidates, a column for each number; absent are the kinds that there are none of."""

    ranked: RankedColumns
    unranked: OmitNone[UnrankedColumns] = None
    pruned: OmitNone[PrunedColumns] = None
    failed: OmitNone[FailedColumns] = None


class ScoreWarning(ResponseModel):
    """Something that is right as asked, and may not be what was meant."""

    code: str
    """For programs; there may come to be others.

    ``missing_space``: the candidate begins with a letter behind a context that ends with one, and
    its first token behind a space is over 100 times as probable; not looked for under ``marginal``
    and with ``top_n``. ``beginning_of_another``: another candidate goes on where this one ends, so
    that this one's sum cannot be the lower one."""
    message: str
    """For people."""
    param: str
    """The candidate: ``candidates.3``."""


def beginnings(results: Sequence[CandidateScore]) -> list[ScoreWarning]:
    """A warning for each of the first candidates that begins another."""
    return [
        ScoreWarning(
            code="beginning_of_another",
            message=(
                f"candidates.{one.index} is the beginning of candidates.{one.prefix_of[0]}"
                + (f" and {len(one.prefix_of) - 1} more" if len(one.prefix_of) > 1 else "")
                + ": its sum cannot be the lower one; append_eos scores that a candidate ends, too"
            ),
            param=f"candidates.{one.index}",
        )
        for one in results[:WARNED_CANDIDATES]
        if one.prefix_of
    ]


class ScoreResponse(BaseResponse):
    """Results in the order of the request's candidates."""

    object: Literal["score"] = "score"
    results: OmitEmpty[list[CandidateScore]] = Field(default_factory=list)
    """Absent where ``compact`` was asked for."""
    compact: OmitNone[CompactScores] = None
    """Absent unless asked for."""
    top: OmitNone[TopReport] = None
    """What ``top_n`` did; absent without it."""
    off_candidate_mass: OmitNone[float] = None
    """1 minus the summed probability of the distinct candidates: what the model gives to all else.
    Absent where a candidate's path begins another's, where the start lies before the context's end,
    and where a candidate was not scored to the end."""
    off_candidate_mass_bounds: OmitNone[tuple[float, float]] = None
    """Where it lies, if only unfinished candidates keep it from being known."""
    boundary: BoundaryReport
    receipt: OmitNone[Receipt] = None
    """Absent unless asked for."""
    warnings: OmitEmpty[list[ScoreWarning]] = Field(default_factory=list)
    """What may not be meant, of the first 64 candidates; absent where there is nothing."""

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
                            "score": -1.125,
                            "logprob": -1.125,
                            "token_count": 1,
                            "mean_logprob": -1.125,
                            "logprob_per_byte": -0.1875,
                            "probability": 1.0,
                            "greedy": True,
                            "numeric_error": 1e-5,
                        }
                    ],
                    off_candidate_mass=0.6753475326416503,
                    boundary={
                        "policy": "joint",
                        "start_token": 5,
                        "shift_bytes": 0,
                        "context_tokens": 5,
                        "bos_added": False,
                    },
                    receipt={
                        "format_version": 1,
                        "chainrule_version": "0.2.0",
                        "model": "smollm2-135m-instruct",
                        "fingerprint": "5b1f0c7a9d3e4f62",
                        "dtype": "float32",
                        "kernels": "native",
                        "prefixes": [[504, 3575, 282, 4649, 314]],
                        "normalization": "sum",
                        "candidates": [
                            {
                                "index": 0,
                                "token_ids": [7042],
                                "logprobs": [-1.125],
                                "logprob": -1.125,
                                "score": -1.125,
                            }
                        ],
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
