"""The n best of a closed set, against scoring all of it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.decoding.top_n import top_candidates
from model_runtime.decoding.top_n.path_score import PathScore
from model_runtime.decoding.top_n.queries import LISTED
from model_runtime.decoding.top_n.result import Pruned, RankedCandidate, TopResult
from model_runtime.decoding.top_n.top_candidates import (
    CHILDREN,
    HELD,
    QUERIES,
    READ,
    WHOLE,
    TopCandidates,
)
from model_runtime.errors import ChainruleError, ForwardFailed, InvalidQuery, NonFiniteLogits
from model_runtime.normalization import log_sum, tie_groups, total
from model_runtime.types import (
    LogprobQuery,
    LogprobResult,
    QueryResult,
    RankedLogprob,
    TokenLogprob,
)
from tests.model_runtime.decoding.table import PROMPT, NextLogprobs, choose, random_table

VOCAB = 24
END = (22, 23)


def rank(row: Sequence[float], token_id: int) -> int:
    return 1 + sum(other > row[token_id] for other in row)


def tell(query: LogprobQuery, table: NextLogprobs) -> LogprobResult:
    """The answer of a language model that is a table."""
    tokens = query.tokens
    assert tokens[: len(PROMPT)] == PROMPT and query.score_from >= len(PROMPT)
    places = range(query.score_from, query.last_row + 1)
    rows = [table(tokens[len(PROMPT) : place]) for place in places]
    own = list(zip(rows, tokens[query.score_from :], strict=False))
    targets = query.targets or ()
    listed = sorted(
        (TokenLogprob(token_id, logprob) for token_id, logprob in enumerate(rows[-1])),
        key=lambda token: (-token.logprob, token.id),
    )
    return LogprobResult(
        logprobs=tuple(row[token_id] for row, token_id in own),
        ranks=tuple(rank(row, token_id) for row, token_id in own),
        target_logprobs=tuple(rows[-1][token_id] for token_id in targets),
        target_ranks=tuple(rank(rows[-1], token_id) for token_id in targets),
        top=tuple(tuple(_top(row, query.top_k)) for row in rows) if query.top_k else (),
        choices=choose(listed, query.choice) if query.choice else (),
    )


def _top(row: Sequence[float], count: int) -> list[TokenLogprob]:
    best = sorted(range(len(row)), key=lambda token_id: (-row[token_id], token_id))[:count]
    return [TokenLogprob(token_id, row[token_id]) for token_id in best]


def tell_or_fail(query: LogprobQuery, table: NextLogprobs) -> QueryResult:
    """The same; a scored token of probability 0 has none, as in the runtime."""
    answer = tell(query, table)
    return NonFiniteLogits("zero") if -math.inf in answer.logprobs else answer


def run(search: TopCandidates, table: NextLogprobs) -> TopResult:
    """Answer a search until it is done."""
    while not search.done:
        queries = search.queries()
        assert queries and queries == search.queries()
        assert all(len(query.tokens) <= search.longest_path for query in queries)
        search.advance([tell_or_fail(query, table) for query in queries])
    return search.result()


def alone(
    path: tuple[int, ...], table: NextLogprobs, end_ids: tuple[int, ...] | None, top_k: int = 0
) -> LogprobResult:
    """What a query for one candidate is answered."""
    return tell(LogprobQuery(PROMPT + path, len(PROMPT), end_ids, top_k), table)


def summed(answer: LogprobResult) -> float:
    ends = (log_sum(answer.target_logprobs),) if answer.target_logprobs else ()
    return total((*answer.logprobs, *ends))


def paths(source: random.Random, count: int, longest: int) -> list[tuple[int, ...]]:
    """Paths over few tokens, so that they share beginnings, begin one another and repeat."""
    return [
        tuple(source.randrange(source.choice((2, 20))) for _ in range(source.randint(1, longest)))
        for _ in range(count)
    ]


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 400),
    longest=st.integers(1, 7),
    wanted=st.integers(1, 12),
    kind=st.sampled_from(["sum", "mean", "random"]),
    ends=st.sampled_from([None, END[:1], END]),
    error=st.sampled_from([0.0, 1e-6, 0.05]),
    whole=st.sampled_from([0, 40, WHOLE]),
    bound=st.sampled_from([1, 5, QUERIES]),
)
def test_the_best_and_their_scores_are_those_of_scoring_everything(
    seed: int,
    count: int,
    longest: int,
    wanted: int,
    kind: str,
    ends: tuple[int, ...] | None,
    error: float,
    whole: int,
    bound: int,
) -> None:
    """Winners, ties at the cut and every bit of a score equal brute force; bounds hold."""
    source = random.Random(seed)
    table = random_table(seed, VOCAB, sharpness=2.5)
    candidates = []
    for path in paths(source, count, longest):
        length = len(path) + (ends is not None)
        divisor = {"sum": 1.0, "mean": float(length), "random": source.uniform(0.5, 9)}[kind]
        candidates.append(RankedCandidate(path, divisor, length * error / divisor))
    bounds = {"QUERIES": bound, "CHILDREN": bound, "READ": bound}
    with patch.multiple(top_candidates, WHOLE=whole, WHOLE_DIVIDED=whole, **bounds):
        search = TopCandidates(PROMPT, candidates, wanted, vocab_size=VOCAB, end_ids=ends)
        result = run(search, table)

    answers = [alone(candidate.path, table, ends) for candidate in candidates]
    scores = [summed(a) / c.divisor for a, c in zip(answers, candidates, strict=True)]
    order = sorted(range(count), key=lambda index: -scores[index])
    groups = tie_groups(scores, [candidate.error for candidate in candidates])
    last = order[:wanted][-1]
    tied = {i for i in order if groups[i] is not None and groups[i] == groups[last]}
    assert set(result.best) == {*order[:wanted], *tied}
    assert [scores[i] for i in result.best] == sorted(scores[i] for i in result.best)[::-1]
    for index, end in enumerate(result.ends):
        if isinstance(end, PathScore):
            assert end.answer() == answers[index]
            assert end.logprob == summed(answers[index])
        else:
            assert isinstance(end, Pruned)
            assert index not in result.best
            assert scores[index] <= end.bound + 1e-12
            assert summed(answers[index]) <= end.logprob


def test_a_large_set_is_pruned() -> None:
    """Most of a large set is never asked about, and what is left is bounded below the cut."""
    source = random.Random(7)
    table = random_table(7, VOCAB, sharpness=3.0)
    candidates = [RankedCandidate(path, 1.0, 1e-5) for path in paths(source, 3000, 7)]
    search = TopCandidates(PROMPT, candidates, 5, vocab_size=VOCAB)
    result = run(search, table)
    assert result.pruned > 1500
    worst = min(
        end.logprob for index in result.best if isinstance(end := result.ends[index], PathScore)
    )
    assert all(end.bound < worst for end in result.ends if isinstance(end, Pruned))


def test_a_small_set_is_asked_for_at_once() -> None:
    """Up to so many tokens one round does it all, and nothing is pruned."""
    candidates = [RankedCandidate((i, j, 1), 1.0, 0.0) for i in range(8) for j in range(8)]
    search = TopCandidates(PROMPT, candidates, 1, vocab_size=VOCAB)
    assert 64 < search.cost <= WHOLE
    assert len(search.queries()) == 64
    result = run(search, random_table(1, VOCAB))
    assert result.pruned == 0 and result.expanded == 64


def test_the_likeliest_tokens_of_every_position_come_with_the_scores() -> None:
    """``top_k`` is answered as it would be for a candidate alone, its end included."""
    source = random.Random(3)
    table = random_table(3, VOCAB)
    given_paths = paths(source, 500, 5)
    candidates = [RankedCandidate(path, 1.0, 0.0) for path in given_paths]
    search = TopCandidates(PROMPT, candidates, 3, vocab_size=VOCAB, end_ids=END, top_k=2)
    result = run(search, table)
    for index in result.best:
        end = result.ends[index]
        assert isinstance(end, PathScore)
        assert end.answer() == alone(given_paths[index], table, END, top_k=2)


def test_an_answer_that_fails_fails_those_behind_it_alone() -> None:
    """Candidates whose prefix cannot be scored have its error; the others are ranked."""
    source = random.Random(5)
    table = random_table(5, VOCAB)
    given_paths = [(i, *path) for i in range(20) for path in paths(source, 40, 4)]
    candidates = [RankedCandidate(path, 1.0, 0.0) for path in given_paths]
    search = TopCandidates(PROMPT, candidates, 800, vocab_size=VOCAB)
    broken = ForwardFailed("this one")
    while not search.done:
        answers: list[QueryResult] = [
            broken if query.tokens[len(PROMPT) :][:1] == (3,) else tell(query, table)
            for query in search.queries()
        ]
        search.advance(answers)
    result = search.result()
    # A candidate of that token alone is scored by the row before it.
    failed = {index for index, path in enumerate(given_paths) if path[0] == 3 and len(path) > 1}
    assert {i for i, end in enumerate(result.ends) if end is broken} == failed
    assert len(result.best) == len(given_paths) - len(failed)


@pytest.mark.parametrize("fan", [LISTED - 1, LISTED + 1])
def test_a_token_of_probability_zero_fails_its_candidates(fan: int) -> None:
    """What the model excludes has no score, whether it was looked up or listed."""
    logprobs = [
        -math.inf if token_id == 2 else math.log(1 / (VOCAB - 1)) for token_id in range(VOCAB)
    ]
    candidates = [
        RankedCandidate((token_id, i, j, k), 1.0, 0.0)
        for token_id in range(fan)
        for i in (4, 5, 6, 7)
        for j in (8, 9, 10, 11)
        for k in (12, 13, 14, 15)
    ]
    result = run(TopCandidates(PROMPT, candidates, 999, vocab_size=VOCAB), lambda _path: logprobs)
    for candidate, end in zip(candidates, result.ends, strict=True):
        assert isinstance(end, NonFiniteLogits) == (candidate.path[0] == 2)


def test_an_end_of_probability_zero_fails_its_candidate() -> None:
    """A candidate that cannot end has no score with an end."""
    row = [-math.inf if token_id in END else math.log(1 / (VOCAB - 2)) for token_id in range(VOCAB)]
    candidates = [RankedCandidate((1, 2), 1.0, 0.0)]
    result = run(
        TopCandidates(PROMPT, candidates, 1, vocab_size=VOCAB, end_ids=END), lambda _path: row
    )
    assert isinstance(result.ends[0], NonFiniteLogits) and result.best == ()


@pytest.mark.parametrize(
    ("candidates", "count", "param"),
    [
        ([], 1, "candidates"),
        ([RankedCandidate((1,), 1.0, 0.0)], 0, "top_n"),
        ([RankedCandidate((), 1.0, 0.0)], 1, "candidates.0"),
        ([RankedCandidate((1,), 0.0, 0.0)], 1, "candidates.0"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    candidates: list[RankedCandidate], count: int, param: str
) -> None:
    """Nothing to rank, nothing wanted, no tokens or nothing to divide by."""
    with pytest.raises(InvalidQuery) as raised:
        TopCandidates(PROMPT, candidates, count, vocab_size=VOCAB)
    assert raised.value.param == param


def test_answers_are_read_as_ranked_log_probs() -> None:
    """A listed child's rank is its place in the whole vocabulary."""
    table = random_table(11, VOCAB)
    candidates = [RankedCandidate((i, j, 9, 8), 1.0, 0.0) for i in range(20) for j in range(20)]
    search = TopCandidates(PROMPT, candidates, 400, vocab_size=VOCAB)
    first = search.queries()[0]
    assert first.choice is not None
    assert all(isinstance(token, RankedLogprob) for token in tell(first, table).choices)
    result = run(search, table)
    for candidate, end in zip(candidates, result.ends, strict=True):
        assert not isinstance(end, Pruned | ChainruleError)
        assert end.answer().ranks == alone(candidate.path, table, None).ranks


@pytest.mark.parametrize("ends", [None, END])
@pytest.mark.parametrize("shortest", [0, 1, 5])
def test_what_all_candidates_share_is_asked_at_once(
    ends: tuple[int, ...] | None, shortest: int
) -> None:
    """A long common beginning takes one round, also where it is a candidate itself."""
    source, table = random.Random(9), random_table(9, VOCAB)
    shared = tuple(source.choices(range(20), k=300))
    tails = [tuple(source.choices(range(20), k=4)) for _ in range(400)]
    given_paths = [shared[: 300 - shortest], *((*shared, *tail) for tail in tails)]
    candidates = [RankedCandidate(path, 1.0, 0.0) for path in given_paths]
    search = TopCandidates(PROMPT, candidates, 3, vocab_size=VOCAB, end_ids=ends)
    (first,) = search.queries()
    assert len(first.tokens) - len(PROMPT) == 300 - shortest - (ends is None)
    result = run(search, table)
    scores = [summed(alone(path, table, ends)) for path in given_paths]
    order = sorted(range(401), key=lambda index: -scores[index])
    assert list(result.best) == order[:3]
    assert result.pruned > 200
    for index, end in enumerate(result.ends):
        if isinstance(end, PathScore):
            assert end.answer() == alone(given_paths[index], table, ends)


def test_a_search_that_is_ended_gives_the_best_so_far() -> None:
    """What was not read yet has a bound, which may exceed the best; nothing claims otherwise."""
    source, table = random.Random(2), random_table(2, VOCAB)
    given_paths = paths(source, 3000, 6)
    candidates = [RankedCandidate(path, 1.0, 0.0) for path in given_paths]
    search = TopCandidates(PROMPT, candidates, 40, vocab_size=VOCAB)
    assert not search.finish_early()
    search = TopCandidates(PROMPT, candidates, 40, vocab_size=VOCAB)
    for _ in range(2):
        search.advance([tell(query, table) for query in search.queries()])
    search.queries()
    assert search.finish_early() and search.done
    result = search.result()
    assert not result.certified and result.best
    assert all(end is not None for end in result.ends)
    assert run(TopCandidates(PROMPT, candidates, 40, vocab_size=VOCAB), table).certified


def test_a_search_that_can_prune_little_costs_as_much_as_everything() -> None:
    """Admission counts what is wanted, or what a search holds, whichever is more."""
    source = random.Random(4)
    candidates = [
        RankedCandidate(tuple(source.choices(range(20), k=9)), 1.0, 0.0) for _ in range(4000)
    ]
    few = TopCandidates(PROMPT, candidates, 1, vocab_size=VOCAB)
    everything = TopCandidates(PROMPT, candidates, 4000, vocab_size=VOCAB)
    assert few.cost == len(PROMPT) - 1 + HELD < everything.cost


def test_many_candidates_are_asked_about_and_read_in_parts() -> None:
    """However many there are, a round asks few queries, and reading it stops again and again."""
    count = 20 * READ
    candidates = [RankedCandidate((i // 200, i % 200), 1.0, 0.0) for i in range(count)]
    search = TopCandidates(PROMPT, candidates, count, vocab_size=200)
    parts = rounds = 0
    while not search.done:
        queries = search.queries()
        assert len(queries) <= QUERIES
        assert sum(query.choice.count for query in queries if query.choice) < CHILDREN + 200
        answers = [even(query) for query in queries]
        parts += sum(1 for _ in search.advance_gradually(answers))
        rounds += 1
    assert parts >= count // READ - rounds
    result = search.result()
    assert (len(result.best), result.pruned) == (count, 0)


def even(query: LogprobQuery) -> LogprobResult:
    """All tokens are equally probable."""
    one, scored = -math.log(200), len(query.tokens) - query.score_from
    allowed = () if query.choice is None else tuple(query.choice.allowed or ())
    return LogprobResult(
        logprobs=(one,) * scored,
        ranks=(1,) * scored,
        target_logprobs=(one,) * len(query.targets or ()),
        target_ranks=(1,) * len(query.targets or ()),
        choices=[RankedLogprob(token_id, one, 1) for token_id in allowed],
    )
