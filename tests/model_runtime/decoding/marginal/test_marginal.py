"""Marginal search against every token path of small vocabularies."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.decoding.marginal.cover_states import MarginalCandidate
from model_runtime.decoding.marginal.covers import WIDTH, MarginalResult
from model_runtime.decoding.marginal.marginal import MarginalSearch
from model_runtime.normalization import log_sum_exp
from tests.model_runtime.decoding.marginal.spelling_world import ENOUGH, World, candidates, worlds
from tests.model_runtime.decoding.table import PROMPT, bigrams, random_table


@settings(deadline=None, max_examples=120)
@given(data=st.data(), world=worlds(), ended=st.booleans())
def test_the_sum_of_all_covers_is_found(data: st.DataObject, world: World, ended: bool) -> None:
    """With budget enough the result is exact, and is what counting every path gives."""
    candidate = data.draw(candidates(world))
    result = world.find(candidate, ended=ended)
    truth = world.truth(candidate.content, ended=ended)
    assert result.exact and result.lower <= result.upper <= result.lower + 1e-9
    assert result.lower - 1e-12 <= truth <= result.upper + 1e-12


@settings(deadline=None, max_examples=120)
@given(data=st.data(), world=worlds(), ended=st.booleans(), budget=st.integers(1, 12))
def test_bounds_hold_under_any_budget(
    data: st.DataObject, world: World, ended: bool, budget: int
) -> None:
    """What was found is below the truth, and with what was left it is above."""
    candidate = data.draw(candidates(world))
    result = world.find(candidate, ended=ended, budget=budget)
    truth = world.truth(candidate.content, ended=ended)
    assert result.lower <= truth + 1e-12 and truth <= result.upper + 1e-12
    assert 1 <= result.expanded <= budget
    if result.exact:
        assert result.upper <= result.lower + 1e-9
    if budget >= 1 + len(candidate.preferred):
        assert not candidate.preferred or result.lower > -math.inf


@settings(deadline=None, max_examples=60)
@given(data=st.data(), world=worlds(), ended=st.booleans(), budget=st.sampled_from((3, 20, 400)))
def test_a_crowd_changes_no_bit(
    data: st.DataObject, world: World, ended: bool, budget: int
) -> None:
    """Each candidate of many has the result that it has alone, under a budget as well."""
    some = data.draw(st.lists(candidates(world), min_size=2, max_size=12))
    together = world.run(world.search(*some, budget=budget, ended=ended))
    alone = [world.find(candidate, budget=budget, ended=ended) for candidate in some]
    assert list(together) == alone


@settings(deadline=None, max_examples=40)
@given(data=st.data(), world=worlds())
def test_bytes_add_up(data: st.DataObject, world: World) -> None:
    """Begins with y = begins with y and any byte, or ends or leaves the text right after y.

    Where many tokens are spelled alike the budget may end first; then the bounds have to meet.
    """
    content = data.draw(candidates(world)).content
    search = MarginalSearch(
        PROMPT,
        [MarginalCandidate(content)],
        world.trie,
        max_expansions=ENOUGH,
        max_model_len=64,
        ends=(world.end, world.end + 1),
    )
    (ended,) = world.run(search)
    assert isinstance(ended, MarginalResult)
    longer = [world.find(MarginalCandidate(content + bytes([byte]))) for byte in b"ab"]
    whole = world.find(MarginalCandidate(content))
    parts = (ended, *longer)
    assert whole.lower <= log_sum_exp([part.upper for part in parts]) + 1e-9
    assert whole.upper >= log_sum_exp([part.lower for part in parts]) - 1e-9


def test_a_hand_written_sum() -> None:
    """P("ab") = P(a) P(b | a) + P(a) P(ba | a) + P(ab): covers may overrun the candidate."""
    row = {"a": 0.5, "b": 0.125, "ab": 0.125, "ba": 0.125}
    texts = tuple(text.encode() for text in row)
    start = [*row.values(), 0.125, 0.0]
    after_a = [0.0, 0.25, 0.25, 0.25, 0.25, 0.0]
    world = World(texts, bigrams(start, [after_a] * 6))
    result = world.find(MarginalCandidate(b"ab", preferred=(2,)))
    assert math.exp(result.lower) == pytest.approx(0.5 * (0.25 + 0.25) + 0.125)
    assert (result.expanded, result.longest, result.exact) == (2, 2, True)
    # followed by the end: a, b, end and ab, end
    ended = world.find(MarginalCandidate(b"ab", preferred=(2,)), ended=True)
    assert math.exp(ended.lower) == pytest.approx(0.5 * 0.25 * 0.25 + 0.125 * 0.25)
    assert ended.longest == 3


def test_what_cannot_be_spelled_has_no_mass() -> None:
    """No token for a byte: nothing is found, and that is certain."""
    world = World((b"a",), random_table(1, 3))
    result = world.find(MarginalCandidate(b"aZ"))
    assert (result.lower, result.upper, result.exact) == (-math.inf, -math.inf, True)


def test_own_tokens_come_in_one_round() -> None:
    """All beginnings along a candidate's own tokens are asked about at once."""
    world = World((b"a", b"b", b"ab"), random_table(3, 5))
    search = world.search(MarginalCandidate(b"abab", preferred=(2, 0, 1)))
    assert [query.tokens[len(PROMPT) :] for query in search.queries()] == [(), (2,), (2, 0)]


def test_no_path_is_asked_about_twice() -> None:
    """Own tokens are not met again on the way."""
    world = World((b"a", b"b", b"ab", b"ba"), random_table(4, 6))
    search = world.search(MarginalCandidate(b"ababab", preferred=(2, 2, 2)))
    asked: list[tuple[int, ...]] = []
    while not search.done:
        asked += [query.tokens for query in search.queries()]
        search.advance([world.answer(query) for query in search.queries()])
    assert len(asked) == len(set(asked))
    (result,) = search.result()
    assert isinstance(result, MarginalResult) and result.expanded == len(asked)


def test_what_would_not_show_is_not_asked_about() -> None:
    """A state too small to be seen beside what was found leaves the sum exact."""
    tiny = 1e-11
    start = [tiny, 0.0, 1.0 - tiny, 0.0, 0.0]
    world = World((b"a", b"b", b"ab"), bigrams(start, [[0.2] * 5] * 5))
    result = world.find(MarginalCandidate(b"ab"))
    assert (result.exact, result.expanded) == (True, 1)
    assert result.lower == pytest.approx(-tiny, rel=1e-3)
    assert result.upper == pytest.approx(0.0, abs=1e-15)


def test_long_candidates_do_not_underflow() -> None:
    """A mass far below the smallest float has its logarithm all the same."""
    row = [math.exp(-40.0), 1.0 - math.exp(-40.0), 0.0]
    world = World((b"a",), bigrams(row, [row] * 3))
    result = world.find(MarginalCandidate(b"a" * 40, preferred=(0,) * 40))
    assert result.lower == pytest.approx(-1600.0) and result.longest == 40


def test_states_beyond_the_budget_are_forgotten_but_count() -> None:
    """However many states there are, no more are held than may be asked about."""
    texts = tuple(b"a" * size for size in range(1, 9))
    world, budget = World(texts, random_table(5, 10)), 30
    search = world.search(MarginalCandidate(b"a" * 13), budget=budget)
    most = 0
    ((_, covers),) = search._served
    while not search.done:
        search.advance([world.answer(query) for query in search.queries()])
        most = max(most, len(covers._frontier))
    (result,) = search.result()
    assert isinstance(result, MarginalResult) and result.expanded == budget
    assert most <= 2 * budget + WIDTH and covers._pushed > 3 * most
    assert result.lower < world.truth(b"a" * 13) < result.upper
