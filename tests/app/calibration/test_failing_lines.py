"""Labelled questions that the model fails at: which of many lines it was."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from model_runtime import (
    ChainruleError,
    ForwardFailed,
    LogprobQuery,
    LogprobResult,
    NonFiniteLogits,
    OutOfMemory,
    PathTooLong,
)
from tests.app.compat.decisions.decision_calls import LAW, ChatTokenizer, choice, labelled
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (PathTooLong("too long"), 422, "context_length_exceeded"),
        (NonFiniteLogits("nan"), 500, "non_finite_logits"),
        (ForwardFailed("out of bounds"), 500, "forward_failed"),
        (OutOfMemory("no room", retry_after_s=7), 503, "out_of_memory"),
    ],
)
async def test_the_line_that_fails_is_named(
    failure: ChainruleError, status: int, code: str
) -> None:
    """Whatever it fails with; of two the first."""
    engine = FakeEngine(
        LAW, tokenizer=ChatTokenizer(), failures={"x": failure}, max_model_len=1 << 16
    )
    lines = labelled()
    lines[29] = lines[31] = {"input": "it", "question": choice("a", "x"), "answer": "a"}
    async with client_of(shell_app(engine)) as client:
        response = await client.post("/v1/calibrations", json={"lines": lines})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert error["param"] == "lines.29.question"
    assert response.headers.get("Retry-After") == ("7" if status == 503 else None)


class Impossible(FakeEngine):
    """Gives the option x no probability."""

    def answer(self, query: LogprobQuery) -> LogprobResult | ChainruleError:
        found = super().answer(query)
        if self.tokenizer.token_text(query.tokens[-1]) != "x" or isinstance(found, ChainruleError):
            return found
        return replace(found, logprobs=(-math.inf,) * len(found.logprobs))


async def test_an_impossible_option_names_its_line() -> None:
    """No map can be fitted to a probability of 0, however possible the other options are."""
    engine = Impossible(LAW, tokenizer=ChatTokenizer(), max_model_len=1 << 16)
    lines = labelled()
    lines[30]["question"] = choice("red", "green", "x")
    async with client_of(shell_app(engine)) as client:
        response = await client.post("/v1/calibrations", json={"lines": lines})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (500, "non_finite_logits")
    assert error["param"] == "lines.30.question"
