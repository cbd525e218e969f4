"""Threshold search: every completion that is probable enough, and whether these are all."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from model_runtime.decoding.best_first import expansion_queries
from model_runtime.decoding.best_first.threshold import ThresholdSearch
from model_runtime.decoding.constraints.stop_strings import StopStrings
from model_runtime.decoding.hypothesis import DecodingResult
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.errors import InvalidQuery
from tests.model_runtime.decoding.brute_force import completions
from tests.model_runtime.decoding.table import (
    PROMPT,
    NextLogprobs,
    answer,
    bigrams,
    letters,
    random_table,
    run,
)

LIMITS = DecodingLimits(4, end_token_ids=frozenset({1}))


def search_of(limits: DecodingLimits, floor: float, **options: Any) -> ThresholdSearch:
    settings = {"vocab_size": 4, "max_results": 10**4, "max_expansions": 10**4, **options}
    return ThresholdSearch(PROMPT, limits, floor=floor, **settings)


def above(
    table: NextLogprobs, floor: float, feasible: str = "any", limits: DecodingLimits = LIMITS
) -> dict[tuple[int, ...], float]:
    return {
        each.path: each.logprob
        for each in completions(table, limits, 4)
        if each.logprob >= floor and (each.ended or feasible == "any")
    }


def as_dict(result: DecodingResult) -> dict[tuple[int, ...], float]:
    return {found.token_ids: found.score for found in result.hypotheses}


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("feasible", ["any", "ended"])
def test_it_finds_just_what_brute_force_finds(
    count: int, feasible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On hundreds of random tables and thresholds; most probable first, and proven complete."""
    monkeypatch.setattr(expansion_queries, "FIRST_COUNT", count)
    source = random.Random(f"{feasible} {count}")
    for _ in range(200):
        table = random_table(source.randrange(10**9), 4, source.choice([0.5, 2.0]))
        stop = StopStrings([b"cd"], letters) if source.random() < 0.3 else None
        limits = DecodingLimits(4, source.choice([0, 0, 2]), frozenset({1}), stop)
        floor = math.log(source.choice([0.3, 0.1, 0.02, 0.001]))
        width = source.choice([1, 3, 32])
        result = run(search_of(limits, floor, feasible=feasible, width=width), table)
        assert as_dict(result) == above(table, floor, feasible, limits)
        scores = [found.score for found in result.hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert result.certificate is not None
        assert result.certificate.optimal


def test_the_threshold_itself_is_in() -> None:
    """At or above: a completion of exactly that probability counts."""
    table = bigrams([0.5, 0.25, 0.25, 0.0], [[0.5, 0.25, 0.25, 0.0]] * 4)
    limits = DecodingLimits(2)
    result = run(search_of(limits, math.log(0.5) + math.log(0.25)), table)
    found = {hypothesis.token_ids for hypothesis in result.hypotheses}
    assert found == {(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)}


def test_nothing_so_probable_is_a_proven_nothing() -> None:
    """Then the first row is enough."""
    result = run(search_of(LIMITS, math.log(0.999)), random_table(1, 4, 0.1))
    assert result.hypotheses == ()
    assert result.certificate is not None
    assert result.certificate.optimal
    assert result.certificate.expanded == 1


def test_more_than_may_be_returned_is_not_complete() -> None:
    """The most probable ones come back, and it is said that there may be others."""
    table, floor = random_table(4, 4), math.log(0.001)
    everything = sorted(above(table, floor).values(), reverse=True)
    assert len(everything) > 5
    result = run(search_of(LIMITS, floor, max_results=5), table)
    assert [found.score for found in result.hypotheses] == everything[:5]
    assert result.certificate is not None
    assert not result.certificate.optimal
    assert result.certificate.gap == 0.0


@pytest.mark.parametrize("budget", [1, 2, 5, 9])
def test_a_search_out_of_budget_is_not_complete(budget: int) -> None:
    """What it has is right as far as it goes; what is missing lies below the bound."""
    table, floor = random_table(4, 4), math.log(0.001)
    everything = above(table, floor)
    result = run(search_of(LIMITS, floor, max_expansions=budget, width=1, num_beams=1), table)
    found = as_dict(result)
    assert found.items() < everything.items()
    certificate = result.certificate
    assert certificate is not None
    assert not certificate.optimal
    assert certificate.upper_bound is not None
    assert certificate.upper_bound >= max(everything.values())


def test_no_query_asks_below_the_threshold() -> None:
    """From the first one on every query has a floor."""
    search, table, floor = search_of(LIMITS, math.log(0.01)), random_table(9, 4), math.log(0.01)
    while not search.done:
        for query in search.queries():
            path = query.tokens[len(PROMPT) :]
            total = sum(table(path[:place])[token] for place, token in enumerate(path))
            assert query.choice is not None
            assert query.choice.floor == pytest.approx(floor - total, abs=1e-3)
        search.advance([answer(query, table) for query in search.queries()])


@pytest.mark.parametrize(
    ("param", "options"),
    [
        ("threshold", {"floor": 0.1}),
        ("threshold", {"floor": -math.inf}),
        ("threshold", {"floor": math.nan}),
        ("max_results", {"floor": -1.0, "max_results": 0}),
        ("max_expansions", {"floor": -1.0, "max_expansions": 0}),
    ],
)
def test_impossible_settings_are_refused_by_name(param: str, options: dict[str, Any]) -> None:
    """Before anything is asked."""
    with pytest.raises(InvalidQuery) as raised:
        search_of(LIMITS, **options)
    assert raised.value.param == param
