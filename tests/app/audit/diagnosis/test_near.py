"""Numbers that are nearly right, and wrong: no name is put to them without evidence."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from app.schemas.diagnosis import Diagnosis
from tests.app.audit.audits import TRAP, audit, refusal
from tests.app.audit.diagnosis.conftest import CANDIDATES, Pair
from tests.app.audit.diagnosis.other_systems import totals
from tests.app.calls import log
from tests.app.fake_engine import FakeEngine


def right(pair: Pair) -> list[list[float]]:
    """The lists of log-probabilities as they should be."""
    return [pair.other.logprobs(before, answer) for before, answer in pair.parts()]


def names(found: Diagnosis) -> list[str]:
    """Of all mistakes that are said to fit."""
    return [name for one in found.explanations for name in one.mistakes]


CHANGES: dict[str, Callable[[float, random.Random], float]] = {
    "a little more": lambda one, _: one + 0.003,
    "more": lambda one, _: one + 0.3,
    "less": lambda one, _: one - 0.5,
    "here and there": lambda one, other: one + other.uniform(-0.4, 0.4),
    "by a factor": lambda one, other: round(one * other.uniform(0.6, 1.4), 1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("count", [2, len(CANDIDATES)])
def test_totals_near_the_right_ones_are_not_explained(change: str, count: int, llama: Pair) -> None:
    """A few of them cannot be told from what low precision leaves, or are none of these."""
    generator = random.Random(7)
    sums = [CHANGES[change](one, generator) for one in totals(right(llama))[:count]]
    found = llama.diagnose({"totals": sums}, candidates=CANDIDATES[:count])
    assert found.verdict in ("none", "undetermined"), found.summary
    if ["bf16_noise"] in [one.mistakes for one in found.explanations]:
        assert "right within" in found.summary and "low precision" in found.summary


@pytest.mark.parametrize("offset", [0.003, 0.3, -0.5])
def test_an_offset_of_every_token_is_no_noise(offset: float, llama: Pair) -> None:
    """Rounding goes either way, and the numbers are enough to see it."""
    lists = [[one + offset for one in found] for found in right(llama)]
    found = llama.diagnose({"token_logprobs": lists})
    assert found.verdict == "none", found.summary


def test_a_temperature_is_not_estimated_from_what_rounding_would_do(llama: Pair) -> None:
    """Whole numbers a few hundredths away from the right ones say nothing of a temperature."""
    sums = [one * 1.03 for one in totals(right(llama))]
    found = llama.diagnose({"totals": [round(one) for one in sums], "decimals": 0})
    assert found.verdict != "explained", found.summary


@pytest.mark.anyio
async def test_noise_is_not_looked_for_where_the_servers_error_is_unknown() -> None:
    """What is 2^16 times as coarse as an unknown error is unknown."""
    answer = await audit(FakeEngine(TRAP), reported={"totals": [log(0.5) + 0.3, log(0.25) - 0.2]})
    found = answer["diagnosis"]
    assert found["verdict"] == "none"
    assert ["bf16_noise"] in [one["mistakes"] for one in found["untried"]]


@pytest.mark.anyio
async def test_agreement_by_chance_is_not_said_to_be_agreement() -> None:
    """Two numbers without decimals agree with half of all that there are."""
    engine = FakeEngine(TRAP, numeric_error=(1e-6, 1e-7))
    coarse = {"probabilities": [1, 0], "decimals": 0}
    found = (await audit(engine, reported=coarse))["diagnosis"]
    assert found["verdict"] == "undetermined"
    assert found["as_reported"]["fits"] and "by chance" in found["summary"]


@pytest.mark.anyio
async def test_probabilities_without_a_decimal_are_refused() -> None:
    """They may have been rounded to anything, or have been too small for a number."""
    for numbers in ([1, 0], [0.0, 0.0], [None, 1.0]):
        error = await refusal(FakeEngine(TRAP), reported={"probabilities": numbers})
        assert error["param"] == "reported.probabilities"
        assert "decimals" in error["message"] and "too small" in error["message"]
