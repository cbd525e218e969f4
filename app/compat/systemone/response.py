"""What POST /v1/systemone answers."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from app.compat.systemone.content import Content
from app.schemas.response import OmitNone, ResponseModel, Timings


class ProbabilityRange(ResponseModel):
    """How far a probability ranges over the orders."""

    lowest: float
    highest: float


class NoulOrders(ResponseModel):
    """What the order in which yes and no are shown has done to the answer."""

    count: int
    """Orders in which they were shown."""
    flipped: bool
    """Whether the other one is more probable in some order."""
    range: ProbabilityRange
    """Of ``noul``."""


class OptionOrders(ResponseModel):
    """What the order in which options are shown has done to the answer."""

    count: int
    flipped: bool
    ranges: dict[str, ProbabilityRange]
    """By the keys of ``probabilities``."""


class NamedNoulAnswer(ResponseModel):
    """How likely yes is."""

    type: Literal["noul"] = "noul"
    noul: float
    """P(yes) / (P(yes) + P(no))."""
    orders: OmitNone[NoulOrders] = None
    """Where ``debias`` was asked for; so below."""
    calibrated_probability: OmitNone[float] = None
    """How often yes is right, as far as the calibration knows that was asked for; so below."""
    set: OmitNone[list[bool]] = None
    """Which of true and false reach the calibration's threshold: the right one is among them except
    at its error rate."""
    abstain: OmitNone[bool] = None
    """Whether ``set`` is not a single one: both may be right, or neither is likely."""


class NamedChoiceAnswer(ResponseModel):
    """The most probable option, and all of them in the request's order."""

    type: Literal["choice"] = "choice"
    choice: str
    """Of equally probable ones the first."""
    confidence: float
    """``(n * p - 1) / (n - 1)`` for the largest p of n probabilities; 1 for one option alone."""
    probabilities: dict[str, float]
    """By option; they add up to 1."""
    orders: OmitNone[OptionOrders] = None
    calibrated_probabilities: OmitNone[dict[str, float]] = None
    """By option. ``choice`` and ``confidence`` stay the model's."""
    set: OmitNone[list[str]] = None
    """The options that reach the calibration's threshold, as of a noul."""
    abstain: OmitNone[bool] = None
    """Whether ``set`` is not a single one."""


class NamedScoreAnswer(ResponseModel):
    """Where the state stands on a scale."""

    type: Literal["score"] = "score"
    score: float
    """The mean of the levels' indices, weighted by their probabilities."""
    confidence: float
    """As that of a choice."""
    legend: dict[str, Content]
    """The levels as they were sent, by their indices from 0."""
    probabilities: dict[str, float]
    """By the same keys."""
    orders: OmitNone[OptionOrders] = None
    calibrated_probabilities: OmitNone[dict[str, float]] = None
    """By the same keys. ``score`` and ``confidence`` stay the model's."""
    set: OmitNone[list[int]] = None
    """The levels that reach the calibration's threshold, as of a noul."""
    abstain: OmitNone[bool] = None


Answer = NamedNoulAnswer | NamedChoiceAnswer | NamedScoreAnswer


class SystemOneUsage(ResponseModel):
    """What the request cost, in tokens."""

    input_tokens: int
    """Tokens of the prompts; what all questions share is counted once."""
    output_tokens: int = 0
    """Options are scored, not generated."""
    scored_tokens: int
    """Tokens of the options, their ends included. This and what follows is our own."""
    cached_tokens: int
    computed_tokens: int
    """Tokens that the model was fed for this request."""


class SystemOneResponse(ResponseModel):
    """An answer to each question, under its name."""

    id: str
    created: int
    """Unix seconds."""
    model: str
    answers: dict[str, Answer]
    usage: SystemOneUsage
    calibration: OmitNone[str] = None
    """The name of the one that the answers are calibrated by."""
    fingerprint: str
    """Of the model, as every native route reports it."""
    timings_ms: Timings

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "systemone-3f6d2b8c1a9e4d57b0c2f4a68e1d7b93",
                    "created": 1764000000,
                    "model": "smollm2-135m-instruct",
                    "answers": {
                        "angry": {"type": "noul", "noul": 0.875},
                        "team": {
                            "type": "choice",
                            "choice": "billing",
                            "confidence": 0.5,
                            "probabilities": {"billing": 0.75, "technical support": 0.25},
                        },
                    },
                    "usage": {
                        "input_tokens": 94,
                        "output_tokens": 0,
                        "scored_tokens": 8,
                        "cached_tokens": 0,
                        "computed_tokens": 96,
                    },
                    "fingerprint": "5b1f0c7a9d3e4f62",
                    "timings_ms": {"queue": 0.1, "tokenize": 0.2, "model": 30.0, "total": 31.0},
                }
            ]
        }
    )
