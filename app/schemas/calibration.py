"""A calibration as it is answered, kept in a file, and read again."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from app.schemas.bounds import MAX_CALIBRATION_LINES, MAX_CURVE_POINTS, MAX_MODEL_NAME_CHARS
from app.schemas.debias import Debias
from app.schemas.response import PART_CONFIG, OmitNone, ResponseModel, Usage

CALIBRATION_NAME = r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,63}$"
"""What a calibration may be called; its file is the name with ``.json`` behind it."""

CalibrationName = Annotated[str, Field(pattern=CALIBRATION_NAME, max_length=64)]
Probability = Annotated[float, Field(ge=0, le=1)]
Inner = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0, le=MAX_CALIBRATION_LINES)]
Short = Annotated[str, Field(max_length=MAX_MODEL_NAME_CHARS)]


class TemperatureMap(ResponseModel):
    """Probabilities are ``softmax(logprobs / temperature)``."""

    method: Literal["temperature"] = "temperature"
    temperature: Annotated[float, Field(gt=0, le=1e6)]
    """Above 1 the model was too sure, below it not sure enough."""


class IsotonicMap(ResponseModel):
    """Probabilities are what a curve makes of the model's, made to add up to 1."""

    method: Literal["isotonic"] = "isotonic"
    points: Annotated[
        list[tuple[Probability, Inner]], Field(min_length=1, max_length=MAX_CURVE_POINTS)
    ]
    """Corners of the curve, from left to right: a probability, and how often options of that
    probability are right. It never falls; between two corners it is a line, beyond them level. Of
    predicates it is about yes alone."""

    @field_validator("points")
    @classmethod
    def _never_falls(cls, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        for (left, low), (right, high) in pairwise(points):
            if not (left < right and low <= high):
                raise PydanticCustomError("curve", "its points do not lie on a curve that rises")
        return points


class Quality(ResponseModel):
    """How good probabilities are on decisions that they were not fitted to; 0 is perfect."""

    nll: Annotated[float, Field(ge=0)]
    """Mean negative log-likelihood of the right options, in nats."""
    brier: Annotated[float, Field(ge=0)]
    """Squared error, summed over the options: from 0 to 2."""
    ece: Probability
    """Expected calibration error: how far the probability of the most probable option is from how
    often it is right, over ten bins of equal width."""


class ReliabilityBin(ResponseModel):
    """Decisions whose most probable option has about one probability."""

    count: Count
    confidence: Probability
    """Its mean probability."""
    accuracy: Probability
    """How often it is right."""


class QuestionCalibration(ResponseModel):
    """What was fitted to the questions of one type."""

    lines: Count
    """Labelled questions of this type. The map is fitted to one half of them, the threshold to the
    other."""
    map: Annotated[TemperatureMap | IsotonicMap, Field(discriminator="method")]
    threshold: Probability
    """The calibrated probability from which on an option is in the set."""
    accuracy: Probability
    """How often the model's most probable option is right."""
    before: Quality
    """Of the model's own probabilities."""
    after: Quality
    """Of calibrated ones, each half of the lines by what was fitted to the other, by one method."""
    set_size: Annotated[float, Field(ge=0)]
    """Mean number of options in the sets of the half that the threshold is from."""
    abstained: Probability
    """How many of these decisions have a set that is not one option."""
    reliability_before: list[ReliabilityBin]
    reliability_after: list[ReliabilityBin]
    """Both in ten bins of equal width, without the empty ones."""


class QuestionCalibrations(ResponseModel):
    """By type of question; what had no labelled line is absent."""

    predicate: OmitNone[QuestionCalibration] = None
    choice: OmitNone[QuestionCalibration] = None
    score: OmitNone[QuestionCalibration] = None


class Calibration(ResponseModel):
    """How answers of one model to one prompt are to be read. Nothing in it depends on when or where
    it was made: equal labels give equal files."""

    object: Literal["calibration"] = "calibration"
    format_version: Literal[1] = 1
    model: Short
    """Its name, for people."""
    fingerprint: Short
    """Of the model. Answers of another one are not calibrated by this."""
    prompt_template: Short
    """Of the prompts that decisions are put in."""
    debias: Debias
    """In which orders the options were shown. Answers to another ``debias`` are not calibrated."""
    error_rate: Inner
    """How many sets may lack the right option."""
    questions: QuestionCalibrations

    model_config = ConfigDict(**PART_CONFIG, allow_inf_nan=False)


class FittedCalibration(ResponseModel):
    """A calibration that was fitted just now."""

    id: str
    object: Literal["fitted_calibration"] = "fitted_calibration"
    created: int
    """Unix seconds."""
    name: OmitNone[str] = None
    """What it is kept by; absent where it is not kept."""
    not_kept: OmitNone[str] = None
    """Why it is not kept although it was to be."""
    calibration: Calibration
    usage: Usage
    """What the labelled questions cost together."""


class RemovedCalibration(ResponseModel):
    """A calibration that is kept no more."""

    object: Literal["calibration.deleted"] = "calibration.deleted"
    name: str
    deleted: Literal[True] = True


class CalibrationSummary(ResponseModel):
    """One of the calibrations that are kept."""

    name: str
    model: str
    fingerprint: str
    prompt_template: str
    debias: Debias
    error_rate: float
    questions: list[Literal["predicate", "choice", "score"]]
    """Types that it was fitted to."""
    usable: bool
    """Whether it is of the model and the prompts that are served."""


class CalibrationList(ResponseModel):
    """All that are kept, by name."""

    object: Literal["list"] = "list"
    data: list[CalibrationSummary]
