"""POST /v1/score: log P(candidate | context), candidate by candidate."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import (
    MAX_CALIBRATION_CONTEXTS,
    MAX_CANDIDATES,
    MAX_LENGTH_PENALTY,
    MAX_TOKEN_IDS,
)
from app.schemas.error import ErrorObject
from app.schemas.request import Candidate, Context, ListingRequest, Temperature
from app.schemas.response import Part, Reply, TokenDetail, example
from model_runtime import GNMT_ALPHA, Join

T = TypeVar("T")

Normalization = Literal["sum", "mean", "per_char", "per_byte", "gnmt", "pmi", "calibrated"]
Contexts = Annotated[
    list[Context], Field(min_length=1, max_length=MAX_CALIBRATION_CONTEXTS, fail_fast=True)
]
BoundaryPolicy = Literal["joint", "separate"]

_NEEDED_BY = {"gnmt": "gnmt_alpha", "pmi": "pmi_context", "calibrated": "calibration_contexts"}
"""Normalizations with a setting of their own. The last two cannot do without it."""


class ScoreRequest(ListingRequest):
    """Candidates to be scored, all given the same context."""

    candidates: Annotated[
        list[Candidate], Field(min_length=1, max_length=MAX_CANDIDATES, fail_fast=True)
    ]
    """Texts or lists of token ids. One that cannot be scored fails alone, by index."""
    boundary: BoundaryPolicy | None = None
    """How context and candidate meet. ``joint``: as the tokenizer would split the whole text;
    all candidates are scored from the request's common start, which may lie before the context's
    end. ``separate``: each tokenized alone. Null: joint if everything is text, else separate."""
    start_token: Annotated[int, Field(ge=1, le=MAX_TOKEN_IDS)] | None = None
    """Pins the position of the first scored token (what ``boundary.start_token`` reports), so that
    a list that is split over several requests is scored as one."""
    append_eos: bool = False
    """Score the end of the sequence as well, as a final token."""
    normalization: Normalization = "sum"
    """What ``score`` is: the log-probability's sum, its mean per scored token, or the sum per
    Unicode code point or UTF-8 byte of the candidate alone. ``gnmt``: the sum divided by
    ``((5 + token_count) / 6) ** gnmt_alpha``. ``pmi``: minus the log-probability of the same token
    ids under ``pmi_context``. ``calibrated``: minus its mean over ``calibration_contexts``."""
    gnmt_alpha: Annotated[float, Field(ge=0, le=MAX_LENGTH_PENALTY)] | None = None
    """The exponent of ``gnmt``. Null: 0.6."""
    pmi_context: Context | None = Field(default=None, validate_default=True)
    """What ``pmi`` compares with: the context without what matters, such as ``"Answer:"``."""
    calibration_contexts: Contexts | None = Field(default=None, validate_default=True)
    """What ``calibrated`` compares with: contexts that say nothing, such as ``"N/A"``."""
    temperature: Temperature = 1.0
    """Divides the scores before the softmax over candidates: changes ``probability`` only."""
    all_or_nothing: bool = False
    """Refuse the whole request when one candidate cannot be scored."""

    @property
    def alpha(self) -> float:
        """The exponent of ``gnmt``."""
        return GNMT_ALPHA if self.gnmt_alpha is None else self.gnmt_alpha

    @field_validator(*_NEEDED_BY.values())
    @classmethod
    def _belongs_to_its_normalization(cls, value: T, info: ValidationInfo) -> T:
        kind = next(kind for kind, param in _NEEDED_BY.items() if param == info.field_name)
        if value is not None and info.data.get("normalization", kind) != kind:
            raise PydanticCustomError("other_normalization", "Only {kind} has this", {"kind": kind})
        return value

    @field_validator("pmi_context", "calibration_contexts")
    @classmethod
    def _is_there_where_it_is_needed(cls, value: T, info: ValidationInfo) -> T:
        if value is None and _NEEDED_BY.get(info.data.get("normalization", "")) == info.field_name:
            raise PydanticCustomError("missing", "Field required")
        return value

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "context": "The capital of France is",
            "candidates": [" Paris", " London", " banana"],
        },
        {
            "context": [{"role": "user", "content": "Is the sky blue? Answer yes or no."}],
            "candidates": ["Yes", "No"],
            "append_eos": True,
            "normalization": "mean",
            "token_logprobs": True,
            "top_logprobs": 2,
        },
    )


class CandidateScore(Part):
    """One candidate's result. Where ``error`` is given, every number is null."""

    index: int
    """Place in the request's ``candidates``."""
    rank: int | None
    """1 + the number of candidates with a higher score."""
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
    """Softmax of ``score / temperature`` over the candidates that could be scored."""
    greedy: bool | None
    """Every scored token is the most probable one at its place."""
    prefix_of: list[int]
    """Candidates whose token path this one begins: it is never less probable than they are, unless
    an end is appended."""
    error: ErrorObject | None
    """Why this candidate could not be scored."""
    tokens: list[TokenDetail] | None
    """The scored tokens in order; null unless asked for. The entry that ``append_eos`` adds names
    the likeliest end token and carries the log of the summed probability of all of them."""


class BoundaryReport(Part):
    """Where context and candidates met."""

    policy: BoundaryPolicy
    start_token: int
    """Position of the first scored token: so many tokens every candidate is conditional on."""
    shift_bytes: int
    """Bytes of the context that lie after the start."""
    context_tokens: int
    bos_added: bool

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


class ScoreResponse(Reply):
    """Results in the order of the request's candidates."""

    object: Literal["score"] = "score"
    results: list[CandidateScore]
    off_candidate_mass: float | None
    """1 minus the summed probability of the distinct candidates: what the model gives to all else.
    Null where a candidate's path begins another's, or where the start lies before the context's
    end."""
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
                            "greedy": True,
                            "prefix_of": [],
                            "error": None,
                            "tokens": None,
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
                    usage={
                        "prompt_tokens": 5,
                        "scored_tokens": 1,
                        "cached_tokens": 0,
                        "computed_tokens": 5,
                    },
                )
            ]
        }
    )
