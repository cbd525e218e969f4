"""When a completion may end."""

from __future__ import annotations

import pytest

from model_runtime.decoding.limits import DecodingLimits
from model_runtime.errors import InvalidQuery


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


def test_row_holds_wanted_tokens_beside_masked_ones() -> None:
    """Masked ids are asked for on top, and a row never exceeds the vocabulary."""
    limits = DecodingLimits(
        max_tokens=9, min_tokens=2, end_token_ids=frozenset({1, 5}), top_logprobs=4
    )
    assert limits.row_width(3, 0, 100) == 5
    assert limits.row_width(3, 2, 100) == 4
    assert limits.row_width(8, 2, 100) == 8
    assert limits.row_width(8, 0, 6) == 6


def test_vocabulary_of_ends_cannot_satisfy_min_tokens() -> None:
    """With nothing but end ids there is no first token to choose."""
    limits = DecodingLimits(max_tokens=2, min_tokens=1, end_token_ids=frozenset({0, 1}))
    limits.check_vocabulary(3)
    with pytest.raises(InvalidQuery) as caught:
        limits.check_vocabulary(2)
    assert caught.value.param == "min_tokens"
