"""Exact search: what it asks, when it ends, what it says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from model_runtime.decoding.base import AnytimeStrategy
from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.best_first import best_first, expansion_queries
from model_runtime.decoding.best_first.best_first import HELD_EXPANSIONS, WIDENED
from model_runtime.decoding.best_first.exact import ExactSearch
from model_runtime.decoding.constraints.stop_strings import StopStrings
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import DecodingResult, FinishReason
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.errors import InvalidQuery, NonFiniteLogits
from model_runtime.types import LogprobQuery, TokenLogprob
from tests.model_runtime.decoding.brute_force import completions, k_best
from tests.model_runtime.decoding.table import (
    PROMPT,
    NextLogprobs,
    answer,
    bigrams,
    letters,
    random_table,
    run,
)

TRAP = bigrams([0.6, 0.4, 0.0], [[0.4, 0.3, 0.3], [0.05, 0.05, 0.9], [1.0, 0.0, 0.0]])
"""Token 0 comes first, but 1 then 2 is more probable than anything that begins with 0."""


def exact(
    table: NextLogprobs, limits: DecodingLimits, vocab_size: int = 3, **options: Any
) -> DecodingResult:
    return run(search_of(limits, vocab_size, **options), table)


def search_of(limits: DecodingLimits, vocab_size: int = 3, **options: Any) -> ExactSearch:
    settings = {"max_expansions": 1000, **options}
    return ExactSearch(PROMPT, limits, vocab_size=vocab_size, **settings)


def step(search: ExactSearch, table: NextLogprobs) -> list[LogprobQuery]:
    queries = list(search.queries())
    search.advance([answer(query, table) for query in queries])
    return queries


def test_it_finds_what_greedy_search_misses() -> None:
    """The first token of the best completion is not the most probable one."""
    result = exact(TRAP, DecodingLimits(2, top_logprobs=2))
    (best,) = result.hypotheses
    assert best.token_ids == (1, 2)
    assert best.score == best.logprob == math.log(0.4) + math.log(0.9)
    assert best.finish_reason is FinishReason.LENGTH
    assert best.token_ranks == (2, 1)
    assert best.top[0] == (TokenLogprob(0, math.log(0.6)), TokenLogprob(1, math.log(0.4)))
    assert result.certificate is not None
    assert result.certificate.optimal
    assert result.certificate.upper_bound == best.score


def test_a_certificate_without_proof_has_the_gap() -> None:
    """With one expansion the prefix that is left bounds everything."""
    limits = DecodingLimits(2, end_token_ids=frozenset({1}))
    result = exact(TRAP, limits, max_expansions=1)
    (best,) = result.hypotheses
    assert best.token_ids == (1,)
    certificate = result.certificate
    assert certificate is not None
    assert not certificate.optimal
    assert certificate.upper_bound == math.log(0.6)
    assert certificate.gap == math.log(0.6) - math.log(0.4)
    assert certificate.expanded == 1


def test_nothing_finished_is_no_hypothesis() -> None:
    """The budget ends before any completion: there is nothing to return, and a bound."""
    result = exact(TRAP, DecodingLimits(2), max_expansions=1)
    assert result.hypotheses == ()
    assert result.certificate is not None
    assert result.certificate.gap is None
    assert result.certificate.upper_bound == math.log(0.6)


def test_all_completions_come_back_where_there_are_fewer_than_asked_for() -> None:
    """Each once, and it is proven that there are no more."""
    result = exact(TRAP, DecodingLimits(2), num_return_sequences=64)
    assert len({found.token_ids for found in result.hypotheses}) == 6
    assert result.certificate is not None
    assert result.certificate.optimal


def test_where_no_token_has_any_probability_there_is_provably_nothing() -> None:
    """An empty result that is proven."""
    result = exact(lambda path: [-math.inf] * 3, DecodingLimits(2))
    assert result.hypotheses == ()
    assert result.certificate is not None
    assert result.certificate.optimal
    assert result.certificate.upper_bound is None


def test_equal_scores_come_by_length_and_then_by_tokens() -> None:
    """However they were found: the order does not depend on the search."""
    even = bigrams([0.25] * 4, [[0.25] * 4] * 4)
    for width in (1, 3, 32):
        result = exact(even, DecodingLimits(2), 4, num_return_sequences=16, width=width)
        found = [hypothesis.token_ids for hypothesis in result.hypotheses]
        assert found == sorted(found)
        assert len(found) == 16


def test_every_path_is_asked_once() -> None:
    """Beam search and frontier share what they ask, and rounds are no wider than allowed."""
    search, asked = search_of(DecodingLimits(5), 6, width=7), []
    table = random_table(3, 6, sharpness=0.5)
    while not search.done:
        widest = 7 * (WIDENED if search.best.full else 1)
        queries = step(search, table)
        assert 1 <= len(queries) <= widest
        asked += [query.tokens for query in queries]
    assert len(set(asked)) == len(asked) == search.expanded > 20


def test_nothing_is_asked_beside_a_beam_that_nothing_may_beat() -> None:
    """Where one path is far ahead, rounds are not filled with what will be cut off anyway."""
    table = bigrams([0.95] + [0.01] * 5, [[0.95] + [0.01] * 5] * 6)
    certificate = exact(table, DecodingLimits(5), 6, num_beams=1).certificate
    assert certificate is not None
    assert certificate.optimal
    assert certificate.expanded == 5


def test_queries_ask_only_for_what_may_matter() -> None:
    """Once something is found each query has a floor: below it no continuation can win."""
    search, table = search_of(DecodingLimits(3), 6, width=4, num_beams=2), random_table(5, 6)
    before = step(search, table) + step(search, table) + step(search, table)
    assert all(query.choice is not None and query.choice.floor is None for query in before)
    best = search.best.cut
    assert best > -math.inf
    for query in search.queries():
        path = query.tokens[len(PROMPT) :]
        total = sum(table(path[:place])[token] for place, token in enumerate(path))
        assert query.choice is not None
        assert query.choice.floor == pytest.approx(best - total, abs=1e-3)
        assert query.choice.floor < best - total


def test_a_path_is_asked_for_more_where_the_first_answer_may_not_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twice as many each time, and it counts as one expansion, though not for the budget."""
    monkeypatch.setattr(expansion_queries, "FIRST_COUNT", 1)
    limits, counts = DecodingLimits(2), []
    search = search_of(limits, 6, num_return_sequences=36, num_beams=1, width=1)
    while not search.done:
        queries = step(search, random_table(1, 6))
        counts += [q.choice.count for q in queries if q.tokens == PROMPT and q.choice is not None]
    assert counts == [1, 2, 4, 6]
    assert search.expanded == 7
    assert len(search.result().hypotheses) == 36


def test_only_end_tokens_are_asked_for_where_only_they_count() -> None:
    """The last token of a completion that has to end is an end token, however improbable."""
    limits = DecodingLimits(2, end_token_ids=frozenset({5}))
    search = search_of(limits, 6, feasible="ended", num_return_sequences=9)
    table = random_table(2, 6)
    step(search, table)
    for query in search.queries():
        assert query.choice is not None
        assert query.choice.allowed is not None
        assert list(query.choice.allowed) == [5]
    result = run(search, table)
    assert len(result.hypotheses) == 6
    assert all(found.token_ids[-1] == 5 for found in result.hypotheses)


def test_a_full_frontier_ends_the_search_honestly(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never holds more than its limit and one round, and says how good it may still get."""
    limits, table = DecodingLimits(5), random_table(11, 8, sharpness=0.3)
    truth = k_best(list(completions(table, limits, 8)), 0.0, 1)
    monkeypatch.setattr(best_first, "FRONTIER_WORDS", 10_000)
    search = search_of(limits, 8, max_expansions=10**5, num_beams=2)
    while not search.done:
        assert search._frontier.size_words <= 10_000
        step(search, table)
    certificate = search.result().certificate
    assert certificate is not None
    assert not certificate.optimal
    assert certificate.upper_bound is not None
    assert certificate.upper_bound >= truth[0]


def test_a_query_that_fails_ends_the_search_with_its_error() -> None:
    """As it ends greedy search."""
    search = search_of(DecodingLimits(3))
    with pytest.raises(NonFiniteLogits, match="nan"):
        search.advance([NonFiniteLogits("nan")])


def test_it_can_be_interrupted_and_others_cannot() -> None:
    """Once it has looked at anything it has something to give."""
    search = search_of(DecodingLimits(4), 6)
    assert isinstance(search, AnytimeStrategy)
    assert not search.finish_early()
    assert not search.done
    step(search, random_table(1, 6))
    assert search.finish_early()
    assert search.done
    for other in (
        GreedySearch(PROMPT, DecodingLimits(2), vocab_size=3),
        BeamSearch(PROMPT, DecodingLimits(2), vocab_size=3, num_beams=2),
    ):
        assert not isinstance(other, AnytimeStrategy)


def test_what_it_costs_is_known_before_it_runs() -> None:
    """A token for each expansion behind the prompt, as far as admission counts them."""
    limits = DecodingLimits(5)
    assert search_of(limits).longest_path == len(PROMPT) + 5
    assert search_of(limits, max_expansions=10).cost == len(PROMPT) + 9
    large = search_of(limits, max_expansions=100_000)
    assert large.cost == len(PROMPT) + HELD_EXPANSIONS - 1


def test_a_stop_ends_a_completion() -> None:
    """With the token that completes it, and its span is told."""
    limits = DecodingLimits(3, stop=StopStrings([b"bc"], letters))
    result = exact(TRAP, limits, feasible="ended")
    (best,) = result.hypotheses
    assert best.token_ids == (1, 2)
    assert best.finish_reason is FinishReason.STOP
    assert best.stop_span == (0, 2)


@pytest.mark.parametrize(
    ("param", "limits", "options"),
    [
        ("max_expansions", DecodingLimits(2), {"max_expansions": 0}),
        ("num_return_sequences", DecodingLimits(2), {"num_return_sequences": 0}),
        ("num_beams", DecodingLimits(2), {"num_beams": 0}),
        ("width", DecodingLimits(2), {"width": 0}),
        ("length_penalty", DecodingLimits(2), {"length_penalty": math.inf}),
        ("feasible", DecodingLimits(2), {"feasible": "all"}),
        ("feasible", DecodingLimits(2), {"feasible": "ended"}),
        ("min_tokens", DecodingLimits(2, 2, frozenset({1})), {"feasible": "ended"}),
    ],
)
def test_impossible_settings_are_refused_by_name(
    param: str, limits: DecodingLimits, options: dict[str, Any]
) -> None:
    """Before anything is asked."""
    with pytest.raises(InvalidQuery) as raised:
        search_of(limits, **options)
    assert raised.value.param == param
