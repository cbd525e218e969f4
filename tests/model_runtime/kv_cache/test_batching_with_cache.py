"""Requests in hand over the real planner and prefix cache, when memory is short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.batching.batch import Batch, QueryProgress
from model_runtime.batching.planner import plan
from model_runtime.batching.trie import fed_tokens
from model_runtime.decoding.base import SingleRound
from model_runtime.errors import ForwardFailed
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.scheduling.batcher import Batcher
from model_runtime.scheduling.request import EngineRequest
from model_runtime.types import LogprobQuery, Priority, QueryResult, RequestOptions, RequestOutput
from tests.model_runtime.chain import Chain
from tests.model_runtime.fake_model import FakeModel, ask, expected, paths

LONGEST = 12


class CachedModel(FakeModel):
    """The fake model's answers, under the planner and the cache that serve."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.cache = PrefixCache(slots + 1)

    def plan(self, work: Sequence[QueryProgress], budget: int) -> Batch:
        return plan(work, self.cache, budget)

    def run(self, batch: Batch) -> Sequence[QueryResult]:
        answers = super().run(batch)
        self.cache.commit(batch, answers)
        self.cache.check()
        return answers

    def release(self, batch: Batch) -> None:
        super().release(batch)
        self.cache.rollback()
        self.cache.check()


def batcher_on(model: FakeModel, budget: int) -> Batcher:
    return Batcher(model.forward, budget, clock=lambda: 0.0)


def job(queries: list[LogprobQuery], priority: Priority) -> EngineRequest:
    search = SingleRound(queries, cost=fed_tokens(queries))
    return EngineRequest(search, RequestOptions(priority), arrival=0.0)


def run_to_end(batcher: Batcher, turns: int) -> dict[EngineRequest, object]:
    """How each job ended; an error if that takes more turns."""
    ends: dict[EngineRequest, object] = {}
    for _ in range(turns):
        ends |= dict(batcher.collect_finished())
        if batcher.idle:
            return ends
        batcher.forward()
    raise TimeoutError("the work never ends")


@settings(deadline=None)
@given(
    paths_of=st.lists(st.integers(2, LONGEST), min_size=2, max_size=6),
    spare=st.integers(0, LONGEST),
    budget=st.integers(1, LONGEST),
    bulk=st.sets(st.integers(0, 5)),
)
def test_requests_that_evict_each_other_all_end(
    paths_of: list[int], spare: int, budget: int, bulk: set[int]
) -> None:
    """Where the cache holds little more than one path, chunked requests still get through."""
    queries = [ask(*[i] * size, score_from=size - 1) for i, size in enumerate(paths_of)]
    batcher = batcher_on(CachedModel(slots=LONGEST + spare), budget)
    classes = [Priority.BULK if i in bulk else Priority.INTERACTIVE for i in range(len(queries))]
    jobs = [job([query], priority) for query, priority in zip(queries, classes, strict=True)]
    for item in jobs:
        batcher.admit(item)
    ends = run_to_end(batcher, turns=20 * LONGEST * len(jobs))
    for item, query in zip(jobs, queries, strict=True):
        end = ends[item]
        assert isinstance(end, RequestOutput)
        assert end.value == (expected(query),)


@settings(deadline=None)
@given(
    decodes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=2, max_size=6),
    scores=st.lists(st.integers(2, 30), max_size=4),
    shared=st.integers(0, 10),
    spare=st.integers(0, 30),
    budget=st.sampled_from([4, 16, 64]),
)
def test_decodes_that_evict_each_other_all_end(
    decodes: list[tuple[int, int]], scores: list[int], shared: int, spare: int, budget: int
) -> None:
    """Where the cache holds little more than one path, nobody fails and little is done twice.

    A step of one decode takes the last token of another, not its whole path, so they do not
    compute each other's prompts again at every step.
    """
    context = tuple(range(100, 100 + shared))
    searches = [Chain((*context, *[i] * size), rounds) for i, (size, rounds) in enumerate(decodes)]
    alone = [
        Chain(search.path, rounds) for search, (_, rounds) in zip(searches, decodes, strict=True)
    ]
    asked = [ask(*[50 + i] * size, score_from=size - 1) for i, size in enumerate(scores)]
    longest = max([*(search.cost for search in searches), *scores])
    batcher = batcher_on(CachedModel(slots=longest + spare), budget)
    jobs = [EngineRequest(search, RequestOptions(), float(i)) for i, search in enumerate(searches)]
    jobs += [job([query], Priority.BULK) for query in asked]
    for item in jobs:
        batcher.admit(item)
    ends = run_to_end(batcher, turns=5000)
    for item, search in zip(jobs, alone, strict=False):
        assert value_of(ends[item]) == uncontended(search)
    for item, query in zip(jobs[len(searches) :], asked, strict=True):
        assert value_of(ends[item]) == (expected(query),)
    assert batcher.counters.batch_tokens <= 3 * sum(item.cost for item in jobs)


def value_of(end: object) -> object:
    assert isinstance(end, RequestOutput), end
    return end.value


def uncontended(search: Chain) -> tuple[object, ...]:
    """What the search is told where it has the model to itself."""
    while not search.done:
        search.advance([expected(query) for query in search.queries()])
    return search.result()


QUERIES = st.builds(
    lambda tokens, cut, keep: replace(
        ask(*tokens, score_from=1 + cut % len(tokens), targets=(1,)), keep=keep
    ),
    st.lists(st.integers(0, 2), min_size=1, max_size=LONGEST),
    st.integers(0, 100),
    st.none() | st.integers(0, LONGEST),
)


@settings(deadline=None)
@given(
    requests=st.lists(st.lists(QUERIES, min_size=1, max_size=3), min_size=1, max_size=8),
    leaves=st.dictionaries(st.integers(0, 7), st.integers(1, 6), max_size=3),
    poison=st.none() | st.integers(0, 2),
    slots=st.integers(LONGEST, 40),
    budget=st.integers(1, 20),
)
def test_the_cache_survives_failures_and_departures(
    requests: list[list[LogprobQuery]],
    leaves: dict[int, int],
    poison: int | None,
    slots: int,
    budget: int,
) -> None:
    """No slot is lost or held twice, whoever fails or leaves, and the others are answered."""
    model = CachedModel(slots)
    jobs = [job(queries, Priority.INTERACTIVE) for queries in requests]
    batcher = batcher_on(model, budget)
    for item in jobs:
        batcher.admit(item)

    def on_run(batch: Batch) -> None:
        forwards = len(model.ran) + len(model.released)
        for index, limit in leaves.items():
            if index < len(jobs) and forwards >= limit:
                jobs[index].cancelled = True
        if any(path[0] == poison for path in paths(batch)):
            raise ValueError("poison")

    model.on_run = on_run
    ends = run_to_end(batcher, turns=2000)
    for i, item in enumerate(jobs):
        end = ends.get(item)
        if end is None:
            assert i in leaves
        else:
            assert may_end(end, requests[i], poison)


def may_end(end: object, queries: list[LogprobQuery], poison: int | None) -> bool:
    """The right answers, or a failure where there is a reason for one."""
    if isinstance(end, RequestOutput):
        return end.value == tuple(expected(query) for query in queries)
    return type(end) is ForwardFailed and poison in {query.tokens[0] for query in queries}
