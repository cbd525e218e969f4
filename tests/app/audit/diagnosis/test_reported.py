"""What may be reported, what is refused, and what an audit costs with it and without."""

from __future__ import annotations

import math
from typing import Any

import pytest

from app.schemas.bounds import MAX_DIAGNOSIS_TOKENS
from tests.app.audit.audits import NO, TRAP, YES, audit, refusal
from tests.app.calls import log
from tests.app.fake_engine import END, STOP, FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio

TOTALS = [log(0.5), log(0.25)]


def engine(**options: Any) -> FakeEngine:
    return FakeEngine(TRAP, numeric_error=(1e-6, 1e-7), **options)


@pytest.mark.parametrize(
    ("reported", "param", "words"),
    [
        ({}, "reported", "one of totals"),
        ({"totals": [-1.0]}, "reported.totals", "1 of them for 2 candidates"),
        ({"totals": [-1.0, -2.0], "order": [0, 1]}, "reported.order", "without totals"),
        ({"totals": [-1.0, "x"]}, "reported.totals.1", "valid number"),
        ({"totals": [-1.0, 1e12]}, "reported.totals.1", "less than or equal"),
        ({"totals": [None, None]}, "reported", "of a candidate that could be scored"),
        ({"probabilities": [0.5, 1.5]}, "reported.probabilities.1", "less than or equal to 1"),
        ({"token_logprobs": [[-1.0] * 513, None]}, "reported.token_logprobs.0", "at most 512"),
        ({"order": [0, 2]}, "reported.order.1", "no candidate 2"),
        ({"order": [0, 0]}, "reported.order", "each candidate once"),
        ({"order": [0]}, "reported.order", "at least 2"),
        ({"order": [0, 1], "decimals": 3}, "reported.decimals", "without order"),
        (
            {"token_logprobs": [[-1.0], [-1.0]], "normalization": "mean"},
            "reported.normalization",
            "'sum'",
        ),
        ({"totals": [-1.0, -2.0], "unknown": 1}, "reported.unknown", "no such field"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    reported: dict[str, Any], param: str, words: str
) -> None:
    """The field within the report, and what is wrong with it."""
    error = await refusal(engine(), reported=reported)
    assert error["param"] == param
    assert words in error["message"]


async def test_without_a_report_nothing_is_added() -> None:
    """No field, and no question more."""
    plain, asked = engine(), engine()
    assert "diagnosis" not in await audit(plain)
    answer = await audit(asked, reported={"totals": TOTALS})
    assert answer["diagnosis"]["verdict"] == "agree"
    assert len(asked.queries) > len(plain.queries)


async def test_its_cost_is_counted() -> None:
    """Usage has what the diagnosis computed."""
    plain = (await audit(engine()))["usage"]
    diagnosed = (await audit(engine(), reported={"totals": TOTALS}))["usage"]
    assert diagnosed["computed_tokens"] > plain["computed_tokens"]
    assert diagnosed["prompt_tokens"] == plain["prompt_tokens"]


async def test_more_is_asked_only_where_nothing_fits() -> None:
    """The whole vocabulary of other inputs is weighed for pairs alone."""
    agreeing, failing = engine(), engine()
    await audit(agreeing, reported={"totals": TOTALS})
    answer = await audit(failing, reported={"totals": [-7.123456, -9.654321]})
    assert answer["diagnosis"]["verdict"] == "none"
    reasons = {tuple(one["mistakes"]): one["reason"] for one in answer["diagnosis"]["untried"]}
    assert "another length than the usual ones" in reasons[("truncated",)]
    assert len(failing.queries) > len(agreeing.queries)


async def test_a_candidate_that_fails_is_left_out() -> None:
    """Its number is not compared."""
    answer = await audit(
        engine(), candidates=[YES, "", NO], reported={"totals": [TOTALS[0], -3, TOTALS[1]]}
    )
    assert answer["diagnosis"]["numbers"] == 2
    assert answer["diagnosis"]["verdict"] == "agree"


async def test_one_of_several_ends_is_told_from_all() -> None:
    """The tokenizer's own end token alone, where the model has two."""
    tokenizer = ToyTokenizer()
    law = {" is": {YES: 0.5, NO: 0.25}, YES: {END: 0.25, STOP: 0.5}, NO: {END: 0.125, STOP: 0.25}}
    ends = (tokenizer.id(END), tokenizer.id(STOP))

    async def diagnosed(*numbers: float) -> dict[str, Any]:
        both = FakeEngine(law, end_token_ids=ends, numeric_error=(1e-6, 1e-7))
        answer = await audit(both, reported={"totals": list(numbers)})
        return dict(answer["diagnosis"]["explanations"][0])

    own = await diagnosed(math.log(0.5 * 0.25), math.log(0.25 * 0.125))
    every = await diagnosed(math.log(0.5 * 0.75), math.log(0.25 * 0.375))
    assert own["mistakes"] == every["mistakes"] == ["end_added"]
    assert "tokenizer's own" in own["about"]
    assert "tokenizer's own" not in every["about"]


async def test_what_would_cost_too_much_is_not_tried_and_said() -> None:
    """Other inputs of a long context exceed what a diagnosis may feed."""
    long = FakeEngine(TRAP, numeric_error=(1e-6, 1e-7), max_model_len=2 * MAX_DIAGNOSIS_TOKENS)
    context = [5] * (MAX_DIAGNOSIS_TOKENS + 10)
    answer = await audit(long, context=context, reported={"totals": [-7.123456, -9.654321]})
    untried = answer["diagnosis"]["untried"]
    assert ["bos_added"] in [one["mistakes"] for one in untried]
    assert ["prompt_scored"] in [one["mistakes"] for one in untried]
    fed = {query.tokens for query in long.queries if query.tokens[:1] != (5,)}
    assert sum(map(len, fed)) == 0 or max(map(len, fed)) < MAX_DIAGNOSIS_TOKENS


async def test_lists_of_other_lengths_say_so() -> None:
    """Where nothing makes so many numbers, nothing is near."""
    answer = await audit(engine(), reported={"token_logprobs": [[-1.0] * 9, [-1.0] * 9]})
    found = answer["diagnosis"]
    assert found["verdict"] == "none"
    assert "as_reported" not in found
    assert "so many numbers" in found["summary"]


EXTREMES = (0.0, 1.0, 5e-324, -1e9, 1e9, -745.0)


@pytest.mark.parametrize("one", EXTREMES)
async def test_any_number_is_diagnosed(one: float) -> None:
    """However large or small: there is an answer, and it is never that they agree."""
    reports: list[dict[str, Any]] = [
        {"totals": [one, -2.123]},
        {"totals": [one, one]},
        {"token_logprobs": [[one], [-2.123]]},
    ]
    if 0 <= one <= 1:
        reports += [{"probabilities": [one, 0.123]}, {"probabilities": [one, one]}]
    for reported in ({**one, "decimals": 9} for one in reports):
        found = (await audit(engine(), reported=reported))["diagnosis"]
        assert found["verdict"] in ("none", "undetermined", "explained"), reported


async def test_more_decimals_than_a_float_can_tell_are_no_failure() -> None:
    """The last digit of such a number is worth nothing, which nothing is divided by."""
    answer = await audit(engine(), reported={"probabilities": [5e-324, 5e-324]})
    assert answer["diagnosis"]["verdict"] != "agree"
