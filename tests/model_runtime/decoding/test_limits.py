"""When a completion may end."""

from __future__ import annotations

import pytest

from model_runtime.decoding.constraints.closed_set import ClosedSet
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.errors import InvalidQuery
from model_runtime.token_set import TokenSet


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 4, "min_tokens": -1}, "min_tokens"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens"),
        ({"max_tokens": 4, "top_logprobs": -1}, "top_logprobs"),
    ],
)
def test_numbers_out_of_range_are_refused(values: dict[str, int], param: str) -> None:
    """Each refusal names the field at fault."""
    with pytest.raises(InvalidQuery) as caught:
        DecodingLimits(**values)
    assert caught.value.param == param


def test_min_tokens_may_equal_max_tokens() -> None:
    """Then no end token is ever chosen."""
    limits = DecodingLimits(max_tokens=3, min_tokens=3, end_token_ids=frozenset({1}))
    assert [limits.masked_ids(length) for length in range(3)] == [{1}, {1}, {1}]


def test_end_may_be_the_token_after_the_first_min_tokens() -> None:
    """Ends are masked for exactly ``min_tokens`` tokens."""
    limits = DecodingLimits(max_tokens=9, min_tokens=2, end_token_ids=frozenset({1, 5}))
    assert [len(limits.masked_ids(length)) for length in range(4)] == [2, 2, 0, 0]


def test_ends_are_left_out_of_what_may_come_next_while_masked() -> None:
    """Within ``min_tokens`` all ids but the ends are allowed; after them every id is."""
    limits = DecodingLimits(max_tokens=9, min_tokens=2, end_token_ids=frozenset({1, 5, 99}))
    assert limits.allowed(0, 7, None) == TokenSet.of((0, 2, 3, 4, 6), 7)
    assert limits.allowed(1, 7, None) == TokenSet.of((0, 2, 3, 4, 6), 7)
    assert limits.allowed(2, 7, None) is None


def test_constraint_and_min_tokens_both_mask_ends() -> None:
    """An end may come where the constraint lets it and ``min_tokens`` are there."""
    closed = ClosedSet([(3,), (3, 4)], 7, end=True)
    limits = DecodingLimits(9, 2, frozenset({1, 5, 99}), constraint=closed)
    assert limits.allowed(0, 7, closed) == TokenSet.of((3,), 7)
    one = closed.push(3)
    assert limits.allowed(1, 7, one) == TokenSet.of((4,), 7)
    assert limits.allowed(2, 7, one.push(4)) == TokenSet.of((1, 5), 7)


def test_vocabulary_of_ends_cannot_satisfy_min_tokens() -> None:
    """With nothing but end ids there is no first token to choose."""
    limits = DecodingLimits(max_tokens=2, min_tokens=1, end_token_ids=frozenset({0, 1}))
    limits.check_vocabulary(3)
    with pytest.raises(InvalidQuery) as caught:
        limits.check_vocabulary(2)
    assert caught.value.param == "min_tokens"
