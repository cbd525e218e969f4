"""What the OpenAPI document shows as examples of decisions and scoring is what it says."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from app.compat.decisions.request import DecisionRequest
from app.compat.decisions.response import DecisionResponse
from app.compat.generative_scoring.label_schemas import (
    GenerativeScoringRequest,
    LabelScoreRequest,
    LabelScores,
    ScoreList,
)
from app.compat.generative_scoring.pair_schemas import TextPairs

REQUESTS = [DecisionRequest, GenerativeScoringRequest, LabelScoreRequest, TextPairs]
RESPONSES = [DecisionResponse, ScoreList, LabelScores]


@pytest.mark.parametrize("model", REQUESTS)
def test_examples_of_requests_are_valid(model: type[BaseModel]) -> None:
    """Every example of a request is one."""
    examples = model.model_json_schema()["examples"]
    assert examples
    for example in examples:
        model.model_validate(example)


@pytest.mark.parametrize("model", RESPONSES)
def test_examples_of_responses_are_valid(model: type[BaseModel]) -> None:
    """Every example of a response has all fields of one, and no others."""
    (example,) = model.model_json_schema(mode="serialization")["examples"]
    assert model.model_validate(example).model_dump() == example
