"""What POST /v1/decisions answers."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict

from app.schemas.response import ResponseModel, Timings


class PredicateAnswer(ResponseModel):
    """How likely a statement is."""

    type: Literal["predicate"] = "predicate"
    name: str | None
    probability: float
    """P(yes) / (P(yes) + P(no))."""


class OptionProbability(ResponseModel):
    """One option of a choice."""

    value: str | bool
    probability: float
    """Its share of the probability of all options; they add up to 1."""


class ChoiceAnswer(ResponseModel):
    """The most probable option, and all of them in the request's order."""

    type: Literal["choice"] = "choice"
    name: str | None
    choice: str | bool
    """Of equally probable ones the first."""
    confidence: float
    """``(n * p - 1) / (n - 1)``, where p is the largest of n probabilities: 0 where all options are
    as likely, 1 where there is no doubt."""
    probabilities: list[OptionProbability]


class LevelProbability(ResponseModel):
    """One level of a scale."""

    value: int
    """Its place, counted from 0."""
    label: str
    probability: float


class ScoreAnswer(ResponseModel):
    """Where the input stands on a scale."""

    type: Literal["score"] = "score"
    name: str | None
    score: float
    """The mean of the levels' values, weighted by their probabilities."""
    confidence: float
    """As that of a choice."""
    probabilities: list[LevelProbability]


class ShareRange(ResponseModel):
    """How far one option's probability ranges over the orders."""

    lowest: float
    highest: float


class OrderRanges(ResponseModel):
    """What the order in which options are shown has done to the answer."""

    count: int
    """Orders in which they were shown."""
    flipped: bool
    """Whether the most probable option is another one in some order than in the others."""
    ranges: list[ShareRange]
    """Of each option in the request's order; of a predicate that of its probability alone."""


class PredicateOrdersAnswer(PredicateAnswer):
    """Where ``debias`` was asked for; so below."""

    orders: OrderRanges


class ChoiceOrdersAnswer(ChoiceAnswer):
    """With the orders."""

    orders: OrderRanges


class ScoreOrdersAnswer(ScoreAnswer):
    """With the orders."""

    orders: OrderRanges


Answer = PredicateAnswer | ChoiceAnswer | ScoreAnswer
OrdersAnswer = PredicateOrdersAnswer | ChoiceOrdersAnswer | ScoreOrdersAnswer


class CalibratedPredicateAnswer(PredicateAnswer):
    """Where the request names a calibration; so below."""

    calibrated_probability: float
    """How often such statements are true, as far as the calibration knows."""
    set: list[bool]
    """Which of true and false reach the calibration's threshold: the right one is among them
    except at its error rate."""
    abstain: bool
    """Whether ``set`` is not a single one: both may be right, or neither is likely."""


class CalibratedOption(OptionProbability):
    """One option of a choice, calibrated."""

    calibrated_probability: float
    """How often such options are right; over all options they add up to 1."""


class CalibratedChoiceAnswer(ChoiceAnswer):
    """``choice`` and ``confidence`` are the model's, not the calibration's."""

    probabilities: list[CalibratedOption]  # type: ignore[assignment]  # nobody adds to it
    set: list[str | bool]
    """Values of the options that reach the calibration's threshold: the right one is among them
    except at its error rate."""
    abstain: bool
    """Whether ``set`` is not a single option: several may be right, or none is likely."""


class CalibratedLevel(LevelProbability):
    """One level of a scale, calibrated."""

    calibrated_probability: float
    """As of an option."""


class CalibratedScoreAnswer(ScoreAnswer):
    """``score`` and ``confidence`` are the model's, not the calibration's."""

    probabilities: list[CalibratedLevel]  # type: ignore[assignment]  # nobody adds to it
    set: list[int]
    """Places of the levels that reach the calibration's threshold, as of a choice."""
    abstain: bool
    """As of a choice."""


class CalibratedPredicateOrdersAnswer(CalibratedPredicateAnswer):
    """With the orders."""

    orders: OrderRanges


class CalibratedChoiceOrdersAnswer(CalibratedChoiceAnswer):
    """With the orders."""

    orders: OrderRanges


class CalibratedScoreOrdersAnswer(CalibratedScoreAnswer):
    """With the orders."""

    orders: OrderRanges


CalibratedAnswer = CalibratedPredicateAnswer | CalibratedChoiceAnswer | CalibratedScoreAnswer
CalibratedOrdersAnswer = (
    CalibratedPredicateOrdersAnswer | CalibratedChoiceOrdersAnswer | CalibratedScoreOrdersAnswer
)


class InputTokensDetails(ResponseModel):
    """``input_tokens``, in two parts."""

    cached_tokens: int
    """Those that were computed already. A lower bound: the options' tokens are computed too."""
    cache_write_tokens: int
    """The others."""


class OutputTokensDetails(ResponseModel):
    """Nothing is generated."""

    reasoning_tokens: int = 0


class DecisionUsage(ResponseModel):
    """What the request cost, in tokens."""

    input_tokens: int
    """Tokens of the prompts; what all questions share is counted once."""
    input_tokens_details: InputTokensDetails
    output_tokens: int = 0
    """Options are scored, not generated."""
    output_tokens_details: OutputTokensDetails
    total_tokens: int
    scored_tokens: int
    """Tokens of the options whose log-probabilities the answers are made of, their ends included.
    This and what follows is our own."""
    computed_tokens: int
    """Tokens that the model was fed for this request."""


EXAMPLE_DECISION: Final[dict[str, Any]] = {
    "id": "decision-3f6d2b8c1a9e4d57b0c2f4a68e1d7b93",
    "object": "decision",
    "created": 1764000000,
    "model": "smollm2-135m-instruct",
    "answers": [{"type": "predicate", "name": "angry", "probability": 0.875}],
    "usage": {
        "input_tokens": 94,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 94},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 94,
        "scored_tokens": 4,
        "computed_tokens": 96,
    },
    "fingerprint": "5b1f0c7a9d3e4f62",
    "timings_ms": {"queue": 0.1, "tokenize": 0.2, "model": 30.0, "total": 31.0},
}


class DecisionResponse(ResponseModel):
    """One answer for each question, in order."""

    id: str
    object: Literal["decision"] = "decision"
    created: int
    """Unix seconds."""
    model: str
    answers: list[Answer | OrdersAnswer | CalibratedAnswer | CalibratedOrdersAnswer]
    usage: DecisionUsage
    fingerprint: str
    """Of the model, as every native route reports it."""
    timings_ms: Timings

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_DECISION]})


class CalibratedDecisionResponse(DecisionResponse):
    """Where the request names a calibration."""

    calibration: str
    """Its name."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **EXAMPLE_DECISION,
                    "answers": [
                        {
                            "type": "predicate",
                            "name": "angry",
                            "probability": 0.875,
                            "calibrated_probability": 0.75,
                            "set": [True],
                            "abstain": False,
                        }
                    ],
                    "calibration": "support",
                }
            ]
        }
    )
