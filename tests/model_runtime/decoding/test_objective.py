"""The objective and what it may become behind a prefix."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.decoding.objective import Objective
from model_runtime.errors import InvalidQuery

ALPHAS = st.sampled_from([-2.0, -0.7, -1e-12, 0.0, 1e-12, 0.3, 1.0, 2.0])
LOGPROBS = st.lists(st.floats(-30, 0), min_size=1, max_size=12)


@given(alpha=ALPHAS, logprobs=LOGPROBS, split=st.integers(0, 11), shortest=st.integers(1, 12))
def test_no_completion_behind_a_prefix_scores_more_than_its_bound(
    alpha: float, logprobs: list[float], split: int, shortest: int
) -> None:
    """To the bit, for any exponent, wherever a completion of admissible length is cut."""
    length = len(logprobs)
    objective = Objective(alpha, min(shortest, length), longest=12)
    sums = [0.0]
    for logprob in logprobs:
        sums.append(sums[-1] + logprob)
    begun = min(split, length)
    score = objective.score(sums[-1], length)
    assert objective.bound(sums[begun], length) >= score
    assert objective.bound(sums[begun], begun + 1 if begun < length else length) >= score


@given(alpha=ALPHAS, logprob=st.floats(-30, 0), length=st.integers(1, 12), top=st.integers(1, 12))
def test_a_bound_is_reached_by_some_admissible_length(
    alpha: float, logprob: float, length: int, top: int
) -> None:
    """It is not merely above all scores: it is the best of them."""
    objective = Objective(alpha, top, longest=12)
    scores = [objective.score(logprob, n) for n in range(max(length, top), 13)]
    assert objective.bound(logprob, length) == max(scores)


@given(alpha=ALPHAS, score=st.floats(-30, -0.01), length=st.integers(1, 12))
def test_the_least_sum_has_the_bound_that_is_asked(alpha: float, score: float, length: int) -> None:
    """A score turned into a sum and back is itself, up to rounding."""
    objective = Objective(alpha, 1, longest=12)
    assert objective.bound(objective.least_sum(score, length), length) == pytest.approx(score)


def test_a_score_is_that_of_beam_search() -> None:
    """The sum over the length to the power of the penalty."""
    assert Objective(2.0, 1, 8).score(-9.0, 3) == -1.0
    assert Objective(0.0, 1, 8).score(-9.0, 3) == -9.0
    assert Objective(-1.0, 1, 8).score(-9.0, 3) == -27.0


@pytest.mark.parametrize("length_penalty", [math.inf, math.nan, 1e9, -1e9])
def test_an_exponent_that_leaves_the_range_is_refused(length_penalty: float) -> None:
    """By name, before anything runs."""
    with pytest.raises(InvalidQuery, match="finite") as raised:
        Objective(length_penalty, 1, 8)
    assert raised.value.param == "length_penalty"
