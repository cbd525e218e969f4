"""A request's own book-keeping: parts joined, rounds advanced, the usage."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_runtime.batching.batch import QuerySlice
from model_runtime.batching.trie import fed_tokens
from model_runtime.decoding.base import SingleRound
from model_runtime.errors import ForwardFailed, NonFiniteLogits
from model_runtime.scheduling.request import (
    QUERIES_AT_ONCE,
    STEP_TOKENS,
    EngineRequest,
    PendingQuery,
)
from model_runtime.types import LogprobQuery, LogprobResult, QueryResult, RequestOptions
from tests.model_runtime.chain import Chain
from tests.model_runtime.fake_model import ask, expected
from tests.model_runtime.giver import Giver

QUERY = ask(*range(20), score_from=3, targets=(1, 2))


def query_slice(query: LogprobQuery, rows: range) -> QuerySlice:
    return QuerySlice(0, query, rows, 0, (0,) * len(rows), (), 0)


def job(
    *queries: LogprobQuery,
    cost: int | None = None,
    deadline: float | None = None,
    cache_salt: str = "",
) -> EngineRequest:
    search = SingleRound(queries, cost=fed_tokens(queries) if cost is None else cost)
    return EngineRequest(
        search, RequestOptions(deadline=deadline, cache_salt=cache_salt), arrival=100.0
    )


@settings(deadline=None)
@given(st.lists(st.integers(3, 20)))
def test_parts_join_to_the_whole_answer(cuts: list[int]) -> None:
    """However the rows are cut, and with chunks that answer none, the answer is the same."""
    item = PendingQuery(QUERY)
    for stop in [*sorted(cuts), 21]:
        assert item.answer is None
        rows = range(item.work.next_row, stop)
        item.add_part(query_slice(QUERY, rows), expected(QUERY, rows))
        assert item.work.next_row == max(3, stop)
    assert item.answer == expected(QUERY)


def test_an_error_ends_the_query() -> None:
    """A part that fails is the answer, whatever came before it."""
    item, error = PendingQuery(QUERY), NonFiniteLogits("nan")
    item.add_part(query_slice(QUERY, range(3, 5)), expected(QUERY, range(3, 5)))
    item.add_part(query_slice(QUERY, range(5, 9)), error)
    assert item.answer is error


def test_a_search_that_asks_nothing_fails_instead_of_waiting_forever() -> None:
    """Not done and no queries is a bug, and is named as one."""
    with pytest.raises(ForwardFailed, match="bug"):
        job().advance(now=100.0)


def test_every_query_carries_the_salt_of_its_request() -> None:
    """Whatever a search asks, in whatever round, is asked under its request's own salt."""
    own = replace(QUERY, cache_salt="mine")
    mine = job(QUERY, own, cache_salt="tenant/")
    mine.advance(now=100.0)
    first, second = (item.work.query.cache_salt for item in mine.asks)
    assert "tenant/" in first
    assert "tenant/" in second
    assert "mine" in second
    assert all(replace(item.work.query, cache_salt="") == QUERY for item in mine.asks)


def salted(cache_salt: str, own: str) -> str:
    """The salt that a query goes under: of its request's and its own."""
    made = job(replace(QUERY, cache_salt=own), cache_salt=cache_salt)
    made.advance(now=100.0)
    return made.asks[0].work.query.cache_salt


SALTS = st.text("1:/a", max_size=4)


@given(st.tuples(SALTS, SALTS), st.tuples(SALTS, SALTS))
@example(("a", "bc"), ("ab", "c"))
@example(("", "ab"), ("ab", ""))
@example(("", "1:ab"), ("a", "b"))
def test_no_two_pairs_of_salts_become_one(one: tuple[str, str], other: tuple[str, str]) -> None:
    """What the request and the query say is kept apart, whatever characters they use."""
    assert (salted(*one) == salted(*other)) == (one == other)
    assert salted("", "") == ""


def test_the_bill_adds_up() -> None:
    """Tokens that the first round needed and nobody fed for it were there already."""
    mine = job(QUERY, ask(0, 1, 99))
    assert mine.advance(now=100.0) is None
    mine.add_usage(computed_tokens=6, began=103.0)
    mine.add_usage(computed_tokens=2, began=104.0)
    for item in mine.asks:
        item.answer = expected(item.work.query)
    outcome = mine.advance(now=107.0)
    assert outcome is not None
    # 20 tokens of QUERY are fed, next-token row included; (0, 1) of the other are among them.
    assert (outcome.computed_tokens, outcome.cached_tokens) == (8, 12)
    assert (outcome.queue_s, outcome.model_s) == (3.0, 4.0)
    assert outcome.value == (expected(QUERY), expected(ask(0, 1, 99)))


def test_short_work_is_due_before_long_work_of_the_same_age() -> None:
    """The virtual deadline grows with the cost."""
    assert job(QUERY, cost=5).virtual_deadline(0.1) < job(QUERY, cost=6).virtual_deadline(0.1)


def test_long_work_is_due_later_with_each_chunk() -> None:
    """What was fed already postpones what is left, so others get in between."""
    mine = job(QUERY)
    before = mine.virtual_deadline(0.1)
    mine.add_usage(computed_tokens=7, began=100.0)
    assert mine.virtual_deadline(0.1) == pytest.approx(before + 0.7)


class Wide:
    """A search without end whose rounds of ten queries soon exceed its cost."""

    cost = 15
    longest_path = 3
    done = False

    def queries(self) -> Sequence[LogprobQuery]:
        return [LogprobQuery((0, i), score_from=2, targets=()) for i in range(10)]

    def advance(self, answers: Sequence[QueryResult]) -> None:
        pass

    def result(self) -> None:
        raise RuntimeError("never done")


def test_a_search_with_a_budget_above_its_cost_is_not_taken_for_an_evicted_one() -> None:
    """It has overrun when more was fed than its queries need, not when it goes on for long."""
    mine = EngineRequest(Wide(), RequestOptions(), arrival=100.0)
    for fed in (11, 10, 10):
        mine.advance(now=100.0)
        mine.add_usage(fed, began=100.0)
        for item in mine.asks:
            item.answer = expected(item.work.query)
    assert mine.usage.computed_tokens == 31
    assert not mine.lost_cached_work
    mine.add_usage(1, began=100.0)
    assert mine.lost_cached_work


def test_work_that_was_fed_more_than_it_costs_has_overrun() -> None:
    """A request that asks once needs no more than its cost, so more means eviction."""
    mine = job(QUERY)
    mine.advance(now=100.0)
    mine.add_usage(20, began=100.0)
    assert not mine.lost_cached_work
    mine.add_usage(1, began=100.0)
    assert mine.lost_cached_work


def test_what_is_given_up_has_its_bill() -> None:
    """The outcome of a search that gives is billed like any other."""
    mine = EngineRequest(Giver((1, 2, 3), rounds=9), RequestOptions(), arrival=100.0)
    assert mine.finish_early(now=100.0) is None
    mine.advance(now=100.0)
    mine.add_usage(computed_tokens=2, began=103.0)
    assert mine.finish_early(now=104.0) is None
    (item,) = mine.asks
    item.answer = expected(item.work.query)
    outcome = mine.finish_early(now=105.0)
    assert outcome is not None
    assert outcome.value == (item.answer,)
    assert (outcome.computed_tokens, outcome.cached_tokens) == (2, 1)
    assert (outcome.queue_s, outcome.model_s) == (3.0, 2.0)


def test_a_deadline_comes_before_the_virtual_one() -> None:
    """Work is due at its own deadline at the latest; without one there is none."""
    assert job(QUERY, cost=10**9, deadline=102.0).virtual_deadline(0.1) == 102.0
    assert job(QUERY).deadline == math.inf


def test_expected_tokens_shrink_as_chunks_are_fed() -> None:
    """A first round expects its own trie, less what was fed; never less than a token."""
    mine = job(QUERY)
    mine.advance(now=100.0)
    assert mine.expected_tokens == 20
    mine.add_usage(computed_tokens=15, began=100.0)
    assert mine.expected_tokens == 5
    mine.add_usage(computed_tokens=15, began=100.0)
    assert mine.expected_tokens == 1


class Rounds(Chain):
    """Asks the same path many times a round."""

    def __init__(self, count: int) -> None:
        super().__init__((1, 2), rounds=2 * count)
        self.count = count

    def queries(self) -> Sequence[LogprobQuery]:
        return [self.query()] * self.count


def test_a_round_of_many_paths_is_no_step() -> None:
    """Few paths are a step, more are work like any other; a first round never is a step."""
    for count, steps in ((1, 1), (STEP_TOKENS, STEP_TOKENS), (STEP_TOKENS + 1, 0)):
        search = EngineRequest(Rounds(count), RequestOptions(), arrival=0.0)
        search.advance(now=0.0)
        assert search.decode_tokens == 0
        for ask_ in search.asks:
            ask_.answer = LogprobResult()
        search.advance(now=1.0)
        assert search.decode_tokens == steps


def test_a_large_round_is_asked_in_parts() -> None:
    """So many queries at a time, in the order of their paths; the answers in the request's."""
    count = 2 * QUERIES_AT_ONCE + 5
    paths = [(1, i % 97, i // 97) for i in range(count)]
    random.Random(3).shuffle(paths)
    queries = [ask(*path) for path in paths]
    mine = job(*queries)
    asked, outcome = [], mine.advance(now=100.0)
    while outcome is None:
        asked.append([item.work.query.tokens for item in mine.asks])
        for item in mine.asks:
            item.answer = expected(item.work.query)
        mine.add_usage(computed_tokens=20, began=100.0)
        outcome = mine.advance(now=101.0)
    assert [len(part) for part in asked] == [QUERIES_AT_ONCE, QUERIES_AT_ONCE, 5]
    assert [path for part in asked for path in part] == sorted(paths)
    assert outcome.value == tuple(map(expected, queries))
    assert (outcome.computed_tokens, outcome.cached_tokens) == (60, fed_tokens(queries) - 60)


class SlowReader(Giver):
    """Reads its answers in three parts."""

    def advance_gradually(self, answers: Sequence[QueryResult]) -> Iterator[None]:
        yield from [None] * 2
        self.advance(answers)


def test_answers_are_read_in_parts() -> None:
    """In between nothing is asked, and then the next round is; what is given up is read first."""
    mine = EngineRequest(SlowReader((1, 2), rounds=3), RequestOptions(), arrival=0.0)
    mine.advance(now=0.0)
    for reading in (True, True, False):
        for item in mine.asks:
            item.answer = LogprobResult()
        assert mine.advance(now=0.0) is None
        assert (mine.is_reading, bool(mine.open_asks)) == (reading, not reading)
    (item,) = mine.asks
    item.answer = LogprobResult()
    outcome = mine.finish_early(now=0.0)
    assert outcome is not None
    assert outcome.value == (LogprobResult(), LogprobResult())
