"""What log-probabilities say about a question, whatever the order in which its options are sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.decisions.answers import Decision, read_decisions
from app.decisions.orders import orders_of
from app.decisions.plan import DecisionPlan
from app.decisions.question import Option, Question
from app.schemas.debias import Debias
from model_runtime import LogprobResult, NonFiniteLogits

Law = dict[tuple[tuple[str, ...], str], float]
"""The log-probability of an option behind a listing."""

logprobs = st.floats(-40.0, -(2.0**-10), width=32)


def decided(options: Sequence[str], debias: Debias, law: Law) -> Decision:
    """The answer to a choice between these, where a model answers by a law."""
    question = Question("choice", None, tuple(map(Option, options)), "questions.0")
    orders = tuple(orders_of(question, debias))
    listings = [tuple(options[index] for index in order) for order in orders]
    answers = [
        LogprobResult(logprobs=(law[listing, option],), target_logprobs=(-0.25,))
        for listing in listings
        for option in options
    ]
    (found,) = read_decisions(DecisionPlan((question,), (orders,), debias), answers)
    return found


@st.composite
def laws(draw: st.DrawFn, debias: Debias, least: int, most: int) -> tuple[list[str], Law]:
    """Some options and, for each of their orders, what a model thinks of them."""
    options = [f"option {index}" for index in range(draw(st.integers(least, most)))]
    question = Question("choice", None, tuple(map(Option, options)), "questions.0")
    law = {
        (tuple(options[index] for index in order), option): draw(logprobs)
        for order in orders_of(question, debias)
        for option in options
    }
    return options, law


def by_option(options: Sequence[str], found: Decision) -> dict[str, tuple[float, ...]]:
    """All numbers of each option."""
    orders = found.orders
    assert orders is not None
    columns = (found.probabilities, found.logprobs, orders.lowest, orders.highest)
    return dict(zip(options, zip(*columns, strict=True), strict=True))


@given(laws("all", 1, 4), st.data())
def test_swapped_options_have_swapped_answers(
    drawn: tuple[list[str], Law], data: st.DataObject
) -> None:
    """Under ``all`` not a bit depends on the order in which options are sent."""
    options, law = drawn
    other = data.draw(st.permutations(options))
    found, again = decided(options, "all", law), decided(other, "all", law)
    assert by_option(options, found) == by_option(other, again)
    assert found.confidence == again.confidence
    assert found.orders is not None and again.orders is not None
    assert found.orders.flipped is again.orders.flipped


@given(laws("cyclic", 1, 9), st.data())
def test_rotated_options_have_rotated_answers(
    drawn: tuple[list[str], Law], data: st.DataObject
) -> None:
    """Under ``cyclic`` no rotation changes a bit."""
    options, law = drawn
    first = data.draw(st.integers(0, len(options) - 1))
    other = options[first:] + options[:first]
    found, again = decided(options, "cyclic", law), decided(other, "cyclic", law)
    assert by_option(options, found) == by_option(other, again)


@given(laws("cyclic", 2, 6))
def test_the_average_is_a_geometric_mean(drawn: tuple[list[str], Law]) -> None:
    """Of the options' probabilities in each order, scaled to add up to 1."""
    options, law = drawn
    found = decided(options, "cyclic", law)
    listings = sorted({listing for listing, _ in law})
    products = []
    for option in options:
        shares = [
            math.exp(law[listing, option]) / sum(math.exp(law[listing, one]) for one in options)
            for listing in listings
        ]
        products.append(math.prod(share ** (1 / len(shares)) for share in shares))
    expected = [product / sum(products) for product in products]
    assert list(found.probabilities) == pytest.approx(expected, abs=1e-9)
    assert math.fsum(found.probabilities) == pytest.approx(1, abs=1e-12)
    assert found.orders is not None
    for share, lowest in zip(found.probabilities, found.orders.lowest, strict=True):
        assert share >= lowest * (1 - 1e-9)


def test_an_average_may_lie_beyond_its_range() -> None:
    """Where the rest trade places: what is second everywhere is ahead of what is last somewhere."""
    tiny = -40.0
    law = {
        (("a", "b", "c"), "a"): math.log(0.4),
        (("a", "b", "c"), "b"): math.log(0.6),
        (("a", "b", "c"), "c"): tiny,
        (("b", "c", "a"), "a"): math.log(0.4),
        (("b", "c", "a"), "b"): tiny,
        (("b", "c", "a"), "c"): math.log(0.6),
        (("c", "a", "b"), "a"): math.log(0.4),
        (("c", "a", "b"), "b"): math.log(0.3),
        (("c", "a", "b"), "c"): math.log(0.3),
    }
    found = decided(["a", "b", "c"], "cyclic", law)
    assert found.best == 0
    assert found.orders is not None and found.orders.flipped
    assert found.probabilities[0] > 0.99 > found.orders.highest[0]


def test_without_debias_nothing_is_averaged() -> None:
    """The numbers are those of the one order, ends included, and there is no range."""
    found = decided(["a", "b"], "none", {(("a", "b"), "a"): -1.0, (("a", "b"), "b"): -2.0})
    assert found.logprobs == (-1.25, -2.25)
    assert found.probabilities[0] == pytest.approx(1 / (1 + math.exp(-1)))
    assert found.orders is None


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ([(-math.inf, -math.inf), (-math.inf, -math.inf)], -0.25),
        ([(-1.0, -2.0), (-math.inf, -math.inf)], -0.25),
        ([(-1.0, -math.inf), (-math.inf, -1.0)], -0.25),
        ([(-1.0, -2.0), (-1.0, -2.0)], -math.inf),
    ],
    ids=["every order", "one order", "each in one order", "ends"],
)
def test_a_question_without_any_probability_is_named(
    options: list[tuple[float, float]], ends: float
) -> None:
    """No NaN is answered, and the other question is not blamed."""
    question = Question("choice", None, (Option("a"), Option("b")), "questions.0")
    questions = (question, replace(question, param="questions.lost"))
    orders = tuple(orders_of(question, "cyclic"))
    good = [LogprobResult(logprobs=(-1.0,), target_logprobs=(-0.25,))] * 4
    bad = [
        LogprobResult(logprobs=(one,), target_logprobs=(ends,))
        for those in options
        for one in those
    ]
    plan = DecisionPlan(questions, (orders, orders), "cyclic")
    with pytest.raises(NonFiniteLogits, match="probability") as refused:
        read_decisions(plan, good + bad)
    assert refused.value.param == "questions.lost"
    assert read_decisions(plan, good + good)[1].probabilities == (0.5, 0.5)
