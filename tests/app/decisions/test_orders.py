"""In which orders options are shown, and how far answers range over them."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Literal

import pytest

from app.decisions.orders import order_count, order_range, orders_of
from app.decisions.question import Option, Question
from app.schemas.debias import Debias
from model_runtime import InvalidQuery

SETTINGS: tuple[Debias, ...] = ("none", "cyclic", "all")


def question(options: int, kind: Literal["predicate", "choice", "score"] = "choice") -> Question:
    """One with so many options."""
    return Question(kind, None, tuple(Option(str(i)) for i in range(options)), "questions.7")


def test_without_debias_options_stand_as_they_were_sent() -> None:
    """One order, whatever the question."""
    assert orders_of(question(3), "none") == [(0, 1, 2)]
    assert orders_of(question(3, "score"), "none") == [(0, 1, 2)]


def test_rotations_put_every_option_at_every_place_once() -> None:
    """n orders of n options, the order that was sent first."""
    assert orders_of(question(3), "cyclic") == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    for places in zip(*orders_of(question(255), "cyclic"), strict=True):
        assert sorted(places) == list(range(255))


def test_all_orders_are_all_permutations() -> None:
    """24 of four options."""
    found = orders_of(question(4), "all")
    assert found[0] == (0, 1, 2, 3)
    assert sorted(found) == sorted(permutations(range(4)))


def test_two_options_are_swapped_by_either() -> None:
    """As yes and no are."""
    for debias in ("cyclic", "all"):
        assert orders_of(question(2, "predicate"), debias) == [(0, 1), (1, 0)]


def test_a_scale_stays_a_scale() -> None:
    """It is shown from both ends and never torn apart, however many levels it has."""
    for debias in ("cyclic", "all"):
        assert orders_of(question(5, "score"), debias) == [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0)]


@pytest.mark.parametrize("debias", SETTINGS)
@pytest.mark.parametrize("kind", ["choice", "score"])
def test_one_option_has_one_order(debias: Debias, kind: Literal["choice", "score"]) -> None:
    """There is nothing to swap it with."""
    assert orders_of(question(1, kind), debias) == [(0,)]


@pytest.mark.parametrize("debias", SETTINGS)
def test_orders_are_counted_before_they_are_made(debias: Debias) -> None:
    """The bounds are checked on the count."""
    for options in range(1, 5):
        for kind in ("choice", "score"):
            asked = question(options, kind)
            assert order_count(asked, debias) == len(orders_of(asked, debias))


def test_more_than_four_options_have_too_many_orders() -> None:
    """The question is named, and what takes it."""
    with pytest.raises(InvalidQuery, match="cyclic takes any number") as refused:
        orders_of(question(5), "all")
    assert refused.value.param == "questions.7"


def test_the_range_is_that_of_each_option() -> None:
    """The smallest and the largest probability over the orders."""
    found = order_range([(0.5, 0.25, 0.25), (0.75, 0.125, 0.125), (0.625, 0.0, 0.375)])
    assert found.count == 3
    assert found.lowest == (0.5, 0.0, 0.125)
    assert found.highest == (0.75, 0.25, 0.375)
    assert not found.flipped


@pytest.mark.parametrize(
    ("shares", "flipped"),
    [
        ([(0.5, 0.5), (0.25, 0.75)], False),  # the second is as probable as any in both
        ([(0.5, 0.5), (0.5, 0.5)], False),
        ([(0.75, 0.25), (0.25, 0.75)], True),
        ([(0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5)], True),
        ([(1.0,)], False),
    ],
)
def test_a_choice_flips_where_no_option_is_best_in_every_order(
    shares: list[tuple[float, ...]], flipped: bool
) -> None:
    """Ties do not flip it, and it does not matter which order or option comes first."""
    for order in permutations(shares):
        for options in permutations(range(len(shares[0]))):
            swapped = [tuple(share[i] for i in options) for share in order]
            assert order_range(swapped).flipped is flipped
            assert math.fsum(order_range(swapped).lowest) <= 1.0
