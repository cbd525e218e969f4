"""The planner, with the cache, over random work: every row sees its own path and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.batching import planner
from model_runtime.batching.batch import Batch, QueryProgress, results_from_output
from model_runtime.batching.planner import plan
from model_runtime.batching.trie import QUERIES_PER_TOKEN, ROWS_PER_TOKEN, fed_tokens, rows_cost
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.types import LogprobQuery, LogprobResult
from tests.symbolic import SymbolicRunner, fake_logprob

BLOCK = 8
LONGEST = 2 * BLOCK + 40


@st.composite
def queries(draw: st.DrawFn) -> LogprobQuery:
    """A path that often shares a long prefix with others, off and on block multiples."""
    trunk = draw(st.sampled_from([1, 3, BLOCK - 1, BLOCK, 2 * BLOCK + 5]))
    branch = draw(st.lists(st.integers(0, 2), min_size=1, max_size=24))
    tokens = (7,) * trunk + tuple(branch)
    score_from = draw(st.integers(1, len(tokens)))
    choices = [(), (0, 1)] if score_from == len(tokens) else [None, (), (0, 1)]
    return LogprobQuery(
        tokens=tokens,
        score_from=score_from,
        targets=draw(st.sampled_from(choices)),
        cache_salt=draw(st.sampled_from(["", "tenant"])),
        keep=draw(st.sampled_from([None, None, 0, score_from, len(tokens), 10**6])),
    )


def answer_all(
    asked: list[LogprobQuery], cache: PrefixCache, runner: SymbolicRunner, budget: int
) -> tuple[list[LogprobResult], list[Batch]]:
    """Run to the end, checking the cache after every step; fails when a batch does nothing."""
    waiting = {i: QueryProgress(query, query.score_from) for i, query in enumerate(asked)}
    results = {i: LogprobResult() for i in waiting}
    batches: list[Batch] = []
    while waiting:
        order = list(waiting)
        batch = plan([waiting[i] for i in order], cache, budget, BLOCK)
        assert batch.query_slices and batch.query_slices[0].work_index == 0
        assert len(batch.token_ids) <= budget
        assert sum(len(e.rows) for e in batch.query_slices) <= ROWS_PER_TOKEN * budget
        answers = results_from_output(batch, runner.run(batch))
        cache.commit(batch)
        cache.check()
        batches.append(batch)
        for query_slice, answer in zip(batch.query_slices, answers, strict=True):
            i = order[query_slice.work_index]
            assert isinstance(answer, LogprobResult)
            results[i] = results[i].concat(answer)
            waiting[i] = QueryProgress(asked[i], query_slice.rows.stop)
            if query_slice.complete:
                del waiting[i]
    return [results[i] for i in range(len(asked))], batches


@settings(max_examples=150, deadline=None)
@given(
    rounds=st.lists(st.lists(queries(), min_size=1, max_size=6), min_size=1, max_size=4),
    budget=st.sampled_from([1, 5, 64, 4096]),
    spare=st.sampled_from([0, 1, 50, 4000]),
)
def test_every_query_is_answered_for_its_own_path(
    rounds: list[list[LogprobQuery]], budget: int, spare: int
) -> None:
    """Whatever is merged, chunked, cached or evicted, each row is computed from its own path."""
    if budget == 1:
        rounds = [rounds[0][:2]]
    cache, runner = PrefixCache(LONGEST + 1 + spare), SymbolicRunner(BLOCK)
    for asked in rounds:
        results, _ = answer_all(asked, cache, runner, budget)
        for query, result in zip(asked, results, strict=True):
            salt, tokens = query.cache_salt, query.tokens
            assert result.logprobs == tuple(
                fake_logprob(salt, tokens[:row], tokens[row])
                for row in range(query.score_from, len(tokens))
            )
            assert result.target_logprobs == tuple(
                fake_logprob(salt, tokens, token) for token in query.targets or ()
            )


def test_shared_prefixes_are_fed_once() -> None:
    """Candidates behind one context cost the context once and their own tokens but the last."""
    context = tuple(range(200))
    asked = [LogprobQuery((*context, 300, i, 400), 200) for i in range(4)]
    batch = plan([QueryProgress(q, 200) for q in asked], PrefixCache(1000), 4096)
    assert len(batch.token_ids) == 200 + 1 + 4 == fed_tokens(asked)
    assert len(batch.head_rows) == 1 + 1 + 4
    assert [query_slice.computed_tokens for query_slice in batch.query_slices] == [202, 1, 1, 1]


def test_a_cached_context_costs_only_the_row_that_is_asked() -> None:
    """The second request behind a context feeds its last token again, and no other."""
    context, cache, runner = tuple(range(300)), PrefixCache(1000), SymbolicRunner(BLOCK)
    answer_all([LogprobQuery((*context, 1, 2), 300)], cache, runner, 4096)
    _, batches = answer_all([LogprobQuery((*context, 5, 6), 300)], cache, runner, 4096)
    assert [len(batch.token_ids) for batch in batches] == [2]


def test_the_same_query_twice_is_computed_once() -> None:
    """A duplicate adds neither a token nor a head row."""
    query = LogprobQuery(tuple(range(50)), 40)
    batch = plan([QueryProgress(query, 40), QueryProgress(query, 40)], PrefixCache(1000), 4096)
    assert (len(batch.token_ids), len(batch.head_rows)) == (49, 10)
    assert batch.query_slices[1].computed_tokens == 0
    assert len(batch.gather_ids) == 10
    assert batch.query_slices[0].gathers == batch.query_slices[1].gathers


def test_rows_of_a_shared_prefix_are_answered_together() -> None:
    """Candidates that are scored from the path's start cost its length once, not once each."""
    context, cache, runner = tuple(range(60)), PrefixCache(1000), SymbolicRunner(BLOCK)
    asked = [LogprobQuery((*context, 100 + i, 7, 8), 1) for i in range(20)]
    _, batches = answer_all(asked, cache, runner, 16)
    fed = sum(len(batch.token_ids) for batch in batches)
    assert fed <= fed_tokens(asked) + len(batches)


def beginning_one_another(count: int) -> list[LogprobQuery]:
    """Candidates that share all their tokens: each is the next one's beginning."""
    longest = tuple(i % 9 for i in range(count))
    return [LogprobQuery((7, *longest[:length]), 1) for length in range(1, count + 1)]


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_rows_of_a_batch_are_bounded_as_its_tokens_are(seed: int | None) -> None:
    """Candidates that begin one another are answered in batches of a bounded number of rows."""
    asked = beginning_one_another(100)
    if seed is not None:
        random.Random(seed).shuffle(asked)
    cache, runner = PrefixCache(1000), SymbolicRunner(BLOCK)
    results, batches = answer_all(asked, cache, runner, 16)
    assert len(batches) < 30
    for query, result in zip(asked, results, strict=True):
        assert result.logprobs == tuple(
            fake_logprob("", query.tokens[:row], query.tokens[row])
            for row in range(1, len(query.tokens))
        )


def test_work_behind_the_last_row_of_a_batch_is_not_looked_at() -> None:
    """What planning takes is bounded by the batch, not by what waits."""
    looked_at: list[int] = []

    class Watched(list[QueryProgress]):
        def __iter__(self) -> Iterator[QueryProgress]:
            for index, item in enumerate(super().__iter__()):
                looked_at.append(index)
                yield item

    asked = beginning_one_another(200)
    batch = plan(Watched(QueryProgress(q, 1) for q in asked), PrefixCache(1000), 200)
    assert sum(len(query_slice.rows) for query_slice in batch.query_slices) == ROWS_PER_TOKEN * 200
    assert len(looked_at) <= len(batch.query_slices) + 1 < len(asked)


def test_works_of_a_batch_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little each adds, as each takes its time beside the forward."""
    monkeypatch.setattr(planner, "MOST_WORK", 8)
    asked = [LogprobQuery((7, 8, i), 2) for i in range(20)]
    results, batches = answer_all(asked, PrefixCache(1000), SymbolicRunner(BLOCK), 16)
    assert [len(batch.query_slices) for batch in batches] == [8, 8, 4]
    for query, result in zip(asked, results, strict=True):
        assert result.logprobs == (fake_logprob("", (7, 8), query.tokens[2]),)


def test_rows_cost_where_they_share_tokens() -> None:
    """Candidates that begin one another feed few tokens, and are charged for their rows."""
    asked = beginning_one_another(200)
    assert fed_tokens(asked) == 200
    rows = 200 * 201 // 2
    assert rows_cost(asked) == rows // ROWS_PER_TOKEN + 200 // QUERIES_PER_TOKEN == 640


def test_what_one_candidate_wants_of_a_shared_row_all_get() -> None:
    """A row that several ask goes through the head once, for the most that one of them wants."""
    asked = [
        LogprobQuery((7, 1, 2), 1),
        LogprobQuery((7, 1, 2, 3), 1, (5, 6), top_k=2),
        LogprobQuery((7, 1, 2), 1, (), top_k=4, summary=True),
    ]
    batch = plan([QueryProgress(q, 1) for q in asked], PrefixCache(100), 64)
    assert batch.top_k == [4, 4, 4, 2]
    assert batch.summaries == [True, True, True, False]
    gathers = list(zip(batch.gather_head, batch.gather_ids, strict=True))
    assert gathers == [(0, 1), (1, 2), (2, 3), (3, 5), (3, 6)]
    assert [query_slice.gathers for query_slice in batch.query_slices] == [
        (0, 1),
        (0, 1, 2, 3, 4),
        (0, 1),
    ]


def test_a_path_that_fills_the_cache_can_be_scored_again() -> None:
    """Tokens that are fed again for their rows take no second slot."""
    path, cache, runner = tuple(range(200)), PrefixCache(201), SymbolicRunner(BLOCK)
    answer_all([LogprobQuery(path, 200, ())], cache, runner, 4096)
    _, batches = answer_all([LogprobQuery(path, 1)], cache, runner, 4096)
    assert [len(batch.token_ids) for batch in batches] == [199]


def test_work_beyond_the_budget_waits_in_order() -> None:
    """The query at the budget's edge is cut, and none behind it overtakes it."""
    asked = [LogprobQuery(tuple(range(first, first + 40)), 1) for first in (0, 100, 200)]
    batch = plan([QueryProgress(q, 1) for q in asked], PrefixCache(1000), 50)
    assert [(e.work_index, e.rows, e.complete) for e in batch.query_slices] == [
        (0, range(1, 40), True),
        (1, range(1, 12), False),
    ]


@pytest.mark.parametrize("salt", ["", "other"])
def test_equal_suffixes_behind_different_contexts_stay_apart(salt: str) -> None:
    """A node is its whole path: the same candidate behind another context is another node."""
    asked = [LogprobQuery((1, 9, 9, 9), 1), LogprobQuery((2, 9, 9, 9), 1, cache_salt=salt)]
    batch = plan([QueryProgress(q, 1) for q in asked], PrefixCache(100), 4096)
    assert list(batch.token_ids) == [1, 9, 9, 2, 9, 9]


def test_an_abandoned_batch_leaves_the_cache_as_it_was() -> None:
    """Slots of a batch that failed are free again, and nothing of it is matched later."""
    cache = PrefixCache(100)
    work = [QueryProgress(LogprobQuery(tuple(range(50)), 40), 40)]
    plan(work, cache, 4096)
    cache.rollback()
    cache.check()
    assert cache.used == 0
    assert len(plan(work, cache, 4096).token_ids) == 49


@pytest.mark.parametrize(("keep", "kept"), [(None, 4), (0, 0), (2, 2), (6, 6), (99, 6)])
def test_what_is_kept_of_a_path_is_what_is_said_to_be_worth_it(keep: int | None, kept: int) -> None:
    """By default what is before the scored tokens; never more than was fed."""
    cache, runner = PrefixCache(LONGEST), SymbolicRunner(BLOCK)
    query = LogprobQuery((1, 2, 3, 4, 5, 6), 4, (), keep=keep)
    answer_all([query], cache, runner, 64)
    assert cache.used == kept
