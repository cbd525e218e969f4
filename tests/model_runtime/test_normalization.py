"""Scores, ranks, probabilities, ties and prefixes."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.decoding.top_n.tied_top_n import TopKWithTies
from model_runtime.errors import InvalidQuery
from model_runtime.normalization import (
    Normalization,
    Size,
    competition_ranks,
    log_sum,
    normalized_error,
    normalized_score,
    off_mass,
    prefix_of,
    prefix_pairs,
    probabilities,
    tie_groups,
)
from model_runtime.types import total

LOGPROBS = st.lists(st.floats(-50, 0), min_size=1, max_size=8)
SCORES = st.lists(st.none() | st.floats(-50, 0) | st.integers(-3, 0).map(float), max_size=8)
PATH = st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple)
PATHS = st.lists(st.none() | st.lists(st.integers(0, 2), max_size=4).map(tuple), max_size=10)


@given(logprobs=LOGPROBS, characters=st.integers(1, 9), extra=st.integers(0, 9))
def test_scores_are_the_sum_over_their_divisor(
    logprobs: list[float], characters: int, extra: int
) -> None:
    """Each normalization is the left-to-right sum over its divisor, or less its baseline."""
    size = Size(len(logprobs), characters, characters + extra)
    baselines = [-1.0, -4.0]
    expected = {
        Normalization.SUM: total(logprobs),
        Normalization.MEAN: total(logprobs) / len(logprobs),
        Normalization.PER_CHAR: total(logprobs) / characters,
        Normalization.PER_BYTE: total(logprobs) / (characters + extra),
        Normalization.GNMT: total(logprobs) / (((5 + len(logprobs)) / 6) ** 0.9),
        Normalization.PMI: total(logprobs) + 2.5,
        Normalization.CALIBRATED: total(logprobs) + 2.5,
    }
    scores = {
        kind: normalized_score(logprobs, kind, size, alpha=0.9, baselines=baselines)
        for kind in Normalization
    }
    assert scores == expected


@given(logprobs=LOGPROBS, error=st.floats(0, 1e-3), kind=st.sampled_from(Normalization))
def test_errors_shrink_as_their_scores_do(
    logprobs: list[float], error: float, kind: Normalization
) -> None:
    """An error in every token, baselines' too, moves a score by at most the carried error."""
    size = Size(len(logprobs), characters=5, byte_count=7)
    bound = normalized_error(error, kind, size)
    sums = [-3.0, -5.0]
    off = [value + error * len(logprobs) for value in sums]
    exact = normalized_score(logprobs, kind, size, baselines=sums)
    moved = normalized_score([value - error for value in logprobs], kind, size, baselines=off)
    assert abs(moved - exact) <= bound + 1e-12
    if kind.has_baseline:
        assert abs(moved - exact) == pytest.approx(bound, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "logprobs"),
    [(Normalization.PER_CHAR, [-1.0]), (Normalization.PER_BYTE, [-1.0]), (Normalization.MEAN, [])],
)
def test_nothing_to_divide_by_is_refused(kind: Normalization, logprobs: list[float]) -> None:
    """A candidate without characters has no score per character."""
    with pytest.raises(InvalidQuery) as caught:
        normalized_score(logprobs, kind, Size(len(logprobs), 0, 0))
    assert caught.value.param == "normalization"
    with pytest.raises(InvalidQuery):
        normalized_error(1e-6, kind, Size(len(logprobs), 0, 0))


def test_sum_needs_no_text() -> None:
    """A sum is a score even of a candidate without characters."""
    kind = Normalization.SUM
    assert normalized_score([-1.0, -2.0], kind, Size(2, 0, 0)) == -3.0


@pytest.mark.parametrize("kind", [Normalization.PMI, Normalization.CALIBRATED])
def test_a_difference_needs_something_to_subtract(kind: Normalization) -> None:
    """Without a baseline there is no score, rather than the plain sum."""
    with pytest.raises(InvalidQuery):
        normalized_score([-1.0], kind, Size(1, 1, 1))


@given(
    table=st.dictionaries(
        st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple),
        st.floats(-50, -3),
        min_size=1,
    )
)
def test_the_mass_that_is_left(table: dict[tuple[int, ...], float]) -> None:
    """1 less the sum over distinct paths, and nothing where two events overlap."""
    overlap = any(a != b and b[: len(a)] == a for a in table for b in table)
    left = off_mass(table)
    assert (left is None) == overlap
    if left is not None:
        assert left == pytest.approx(1 - sum(math.exp(value) for value in table.values()))


def test_rounding_leaves_no_negative_mass() -> None:
    """Probabilities that sum to a little more than 1 leave nothing."""
    assert off_mass({(1,): math.log(0.5), (2,): math.log(0.5) + 1e-9}) == 0.0


def test_equal_scores_share_a_rank_and_leave_a_gap() -> None:
    """Competition ranking: 1, 2, 2, 4; a missing score has no rank."""
    assert competition_ranks([-3.0, -1.0, None, -2.0, -2.0]) == [4, 1, None, 2, 2]


@given(scores=SCORES)
def test_rank_counts_the_strictly_better(scores: list[float | None]) -> None:
    """Rank is 1 + the number of strictly better scores."""
    present = [score for score in scores if score is not None]
    expected = [None if s is None else 1 + sum(other > s for other in present) for s in scores]
    assert competition_ranks(scores) == expected


@given(scores=SCORES, temperature=st.floats(0.01, 100))
def test_probabilities_sum_to_one_in_the_order_of_scores(
    scores: list[float | None], temperature: float
) -> None:
    """They sum to 1 over the scored candidates, and log-ratios are score differences / T."""
    shares = probabilities(scores, temperature)
    pairs = [(s, p) for s, p in zip(scores, shares, strict=True) if s is not None]
    assert [p is None for p in shares] == [s is None for s in scores]
    if pairs:
        assert math.fsum(p for _, p in pairs if p is not None) == pytest.approx(1)
    for score, share in pairs:
        for other_score, other_share in pairs:
            ratio = math.exp(min(0.0, (score - other_score) / temperature))
            if score <= other_score:
                assert share == pytest.approx(ratio * (other_share or 0.0), rel=1e-9, abs=1e-300)


def test_probabilities_do_not_depend_on_order_or_on_a_common_shift() -> None:
    """Any order gives the same bits, and only differences of scores matter."""
    scores = [-3.0, -1.25, -7.5, -0.5, -2.75]
    shares = dict(zip(scores, probabilities(scores), strict=True))
    for seed in range(10):
        shuffled = random.Random(seed).sample(scores, len(scores))
        assert probabilities(shuffled) == [shares[score] for score in shuffled]
    assert probabilities([score - 1e6 for score in scores]) == list(shares.values())


def test_probabilities_of_nothing() -> None:
    """Where every candidate failed there is nothing to share."""
    assert probabilities([None, None]) == [None, None]
    assert probabilities([]) == []


def test_extreme_scores_and_temperatures_do_not_overflow() -> None:
    """The best candidate takes all when differences are beyond float64."""
    assert probabilities([-1e9, -1.0]) == [0.0, 1.0]
    assert probabilities([-2.0, -1.0], 1e-320) == [0.0, 1.0]
    assert probabilities([-2.0, -1.0], 1e300) == [0.5, 0.5]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperature_is_refused(temperature: float) -> None:
    """The refusal names the field."""
    with pytest.raises(InvalidQuery) as caught:
        probabilities([-1.0], temperature)
    assert caught.value.param == "temperature"


def test_ties_chain_through_neighbours() -> None:
    """a ~ b ~ c is one group though a and c are further apart than their errors."""
    scores = [-1.0, -5.0, -1.15, None, -1.3, -5.1, -9.0]
    assert tie_groups(scores, [0.1] * 7) == [1, 2, 1, None, 1, 2, None]


def test_errors_of_both_sides_count() -> None:
    """A certain score and an uncertain one are tied by the larger error."""
    assert tie_groups([-1.0, -1.5], [0.0, 0.5]) == [1, 1]
    assert tie_groups([-1.0, -1.5], [0.0, 0.4]) == [None, None]


def test_equal_scores_are_tied_without_any_error() -> None:
    """Exactly equal scores cannot be told apart."""
    assert tie_groups([-2.0, -1.0, -2.0], [0.0] * 3) == [1, None, 1]


@given(
    items=st.lists(st.tuples(st.none() | st.floats(-5, 0), st.floats(0, 1)), max_size=8),
    seed=st.integers(0, 99),
)
def test_groups_are_the_unbroken_runs_of_the_sorted_scores(
    items: list[tuple[float | None, float]], seed: int
) -> None:
    """Groups are maximal runs of at least two, whatever order the candidates come in."""
    groups = tie_groups([score for score, _ in items], [error for _, error in items])
    runs: list[list[int]] = []
    order = [index for index, (score, _) in enumerate(items) if score is not None]
    largest = {score: max(error for s, error in items if s == score) for score, _ in items}
    for index in sorted(order, key=lambda index: -(items[index][0] or 0.0)):
        score = items[index][0]
        last = items[runs[-1][-1]][0] if runs else math.inf
        if score == last or (score or 0.0) + largest[score] >= (last or 0.0) - largest.get(last, 0):
            runs[-1].append(index)
        else:
            runs.append([index])
    expected: list[int | None] = [None] * len(items)
    for number, run in enumerate((run for run in runs if len(run) > 1), start=1):
        for index in run:
            expected[index] = number
    assert groups == expected


def test_prefixes_are_those_of_token_paths() -> None:
    """Strict prefixes only, also through several levels; a failed candidate has none."""
    paths = [(1,), (1, 2), (2,), None, (1, 2, 3), (1, 2)]
    assert prefix_of(paths) == [(1, 4, 5), (4,), (), (), (), (4,)]


@given(paths=PATHS)
def test_prefix_of_is_the_definition(paths: list[tuple[int, ...] | None]) -> None:
    """It names exactly the longer paths that begin with the shorter one."""
    expected = [
        ()
        if short is None
        else tuple(
            index
            for index, path in enumerate(paths)
            if path is not None and len(path) > len(short) and path[: len(short)] == short
        )
        for short in paths
    ]
    assert prefix_of(paths) == expected
    assert prefix_pairs(paths) == sum(map(len, expected))


@pytest.mark.parametrize("seed", range(30))
def test_ties_do_not_depend_on_the_order_of_equal_scores(seed: int) -> None:
    """Of equal scores with different errors the largest counts, whichever comes first."""
    source = random.Random(seed)
    pairs = [(float(source.randint(-4, 0)), source.choice((0.0, 0.3, 0.8))) for _ in range(9)]
    groups = tie_groups([score for score, _ in pairs], [error for _, error in pairs])
    order = source.sample(range(9), 9)
    shuffled = tie_groups([pairs[i][0] for i in order], [pairs[i][1] for i in order])
    assert shuffled == [groups[i] for i in order]
    best, again = TopKWithTies(3), TopKWithTies(3)
    for index, (score, error) in enumerate(pairs):
        best.add(score, error, index)
    for index in order:
        again.add(*pairs[index], index)
    assert best.best == again.best and best.threshold == again.threshold
    third = best.best[2].place
    wanted = {place.place for place in best.best[:3]}
    tied = {i for i, group in enumerate(groups) if group is not None and group == groups[third]}
    assert {place.place for place in best.best} == wanted | tied


def test_ends_that_are_certain_together_are_no_more_than_certain() -> None:
    """float32 log-probs of two ends may add up to more than 1; their log stays at 0."""
    half = math.log(0.5) + 1e-7
    assert log_sum([half, half]) == 0.0
