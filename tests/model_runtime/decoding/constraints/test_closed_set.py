"""Searches limited to a closed set of candidates, on tables."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.decoding.constraints.closed_set import ClosedSet
from model_runtime.decoding.constraints.stop_strings import StopStrings
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import FinishReason, Hypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.errors import InvalidQuery
from model_runtime.types import total
from tests.model_runtime.decoding.table import (
    PROMPT,
    NextLogprobs,
    beam,
    bigrams,
    letters,
    random_table,
    run,
)

VOCAB = 5
END = 4
ENDS = frozenset({END})

PATHS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=9)


def closed(paths: Sequence[Sequence[int]], *, end: bool, **limits: int) -> DecodingLimits:
    """Limits under which every candidate fits."""
    longest = max(map(len, paths)) + end
    return DecodingLimits(
        limits.pop("max_tokens", longest),
        end_token_ids=ENDS,
        constraint=ClosedSet(paths, VOCAB, end=end),
        **limits,
    )


def finished(path: Sequence[int], *, end: bool) -> tuple[int, ...]:
    """A candidate as a completion."""
    return (*path, END) if end else tuple(path)


def greedy(table: NextLogprobs, limits: DecodingLimits) -> Hypothesis:
    """The one completion under ``limits``."""
    return run(GreedySearch(PROMPT, limits, vocab_size=VOCAB), table).hypotheses[0]


def logprob(table: NextLogprobs, path: Sequence[int]) -> float:
    """The table's own sum along a path."""
    return total([table(tuple(path[:i]))[token] for i, token in enumerate(path)])


@given(PATHS, st.booleans(), st.lists(st.integers(0, 3), max_size=5))
def test_a_state_says_what_the_candidates_say(
    paths: list[list[int]], end: bool, walk: list[int]
) -> None:
    """What may follow, whether it may end and which candidate it is, by looking at all of them."""
    state = start = ClosedSet(paths, VOCAB, end=end)
    for depth in range(len(walk) + 1):
        behind = walk[:depth]
        here = [path for path in paths if path[:depth] == behind]
        assert start.index_of(behind) == (paths.index(behind) if behind in paths else None)
        if not here:
            with pytest.raises(ValueError, match="no candidate"):
                state.push(behind[-1])
            return
        state = state.push(behind[-1]) if behind else state
        assert set(state.allowed) == {path[depth] for path in here if len(path) > depth}
        assert state.candidates == tuple(i for i, path in enumerate(paths) if path == behind)
        assert state.may_end == (end and behind in paths)
        assert state.complete == (not end and behind in paths)
    assert set(start.allowed) == {path[0] for path in paths}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), PATHS, st.booleans(), st.sampled_from([0.0, 1.0]))
def test_a_wide_beam_finds_every_candidate(
    seed: int, paths: list[list[int]], end: bool, length_penalty: float
) -> None:
    """Each distinct one once, with the model's own log-prob, also one that begins another one."""
    table = random_table(seed, VOCAB)
    found = beam(
        table,
        closed(paths, end=end),
        VOCAB,
        num_beams=64,
        num_return_sequences=64,
        length_penalty=length_penalty,
        early_stopping="never",
    )
    expected = {finished(path, end=end) for path in paths}
    assert {h.token_ids: h.logprob for h in found} == {p: logprob(table, p) for p in expected}
    assert len(found) == len(expected)
    reason = FinishReason.END if end else FinishReason.COMPLETE
    assert {h.finish_reason for h in found} == {reason}
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), PATHS, st.booleans())
def test_greedy_takes_the_best_token_that_goes_on_to_a_candidate(
    seed: int, paths: list[list[int]], end: bool
) -> None:
    """Each token is the argmax of what is left, with its rank in the whole vocabulary."""
    table = random_table(seed, VOCAB)
    found = greedy(table, closed(paths, end=end))
    completions = [finished(path, end=end) for path in paths]
    assert found.token_ids in completions
    for depth, token in enumerate(found.token_ids):
        row, behind = table(found.token_ids[:depth]), found.token_ids[:depth]
        assert behind not in completions
        nexts = {c[depth] for c in completions if c[:depth] == behind and len(c) > depth}
        assert token == max(nexts, key=lambda i: row[i])
        assert found.token_logprobs[depth] == row[token]
        assert found.token_ranks[depth] == 1 + sum(value > row[token] for value in row)


def test_greedy_ends_with_the_candidate_that_begins_another_one() -> None:
    """Without an end the shorter one always beats the longer one."""
    table = bigrams([0.1, 0.2, 0.3, 0.2, 0.2], [[0.2] * 5] * 5)
    found = greedy(table, closed([[0, 1], [0]], end=False))
    assert found.token_ids == (0,)
    assert found.finish_reason is FinishReason.COMPLETE


def test_a_path_cut_by_max_tokens_is_reported_as_cut() -> None:
    """What is no candidate is never reported as complete."""
    found = greedy(random_table(1, VOCAB), closed([[0, 1, 2]], end=False, max_tokens=2))
    assert (found.token_ids, found.finish_reason) == ((0, 1), FinishReason.LENGTH)
    whole = greedy(random_table(1, VOCAB), closed([[0, 1, 2]], end=False, max_tokens=3))
    assert whole.finish_reason is FinishReason.COMPLETE


def test_candidates_shorter_than_min_tokens_do_not_count() -> None:
    """They complete nothing, and are the beginning of longer ones at most."""
    table = random_table(2, VOCAB)
    for end in (False, True):
        limits = closed([[0], [0, 1, 2]], end=end, min_tokens=2)
        assert greedy(table, limits).token_ids == finished([0, 1, 2], end=end)
        found = beam(table, limits, VOCAB, num_beams=4, num_return_sequences=4)
        assert [h.token_ids for h in found] == [finished([0, 1, 2], end=end)]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_where_nothing_can_be_completed_the_search_fails(num_beams: int) -> None:
    """A dead end is an error that names the constraint, not a completion."""
    limits = closed([[0], [1]], end=True, min_tokens=2)
    with pytest.raises(InvalidQuery, match="constraint"):
        greedy(random_table(3, VOCAB), limits)
    with pytest.raises(InvalidQuery, match="constraint"):
        beam(random_table(3, VOCAB), limits, VOCAB, num_beams=num_beams)


def test_a_dead_end_ends_its_own_path_alone() -> None:
    """Of two candidates one of which is impossible, a beam finds the other."""
    table = bigrams([0.9, 0.1, 0, 0, 0], [[0, 0, 1, 0, 0]] * 5)
    (found,) = beam(table, closed([[0, 3], [1, 2]], end=False), VOCAB, num_beams=2)
    assert found.token_ids == (1, 2)
    with pytest.raises(InvalidQuery, match="probability"):
        greedy(table, closed([[0, 3], [1, 2]], end=False))


def test_a_stop_ends_a_candidate_early() -> None:
    """Stops and the set hold side by side."""
    limits = DecodingLimits(
        3,
        stop=StopStrings((b"bc",), letters),
        constraint=ClosedSet([(1, 2, 3), (1, 3)], VOCAB, end=False),
    )
    found = beam(random_table(4, VOCAB), limits, VOCAB, num_beams=4, num_return_sequences=4)
    assert {(h.token_ids, h.finish_reason) for h in found} == {
        ((1, 2), FinishReason.STOP),
        ((1, 3), FinishReason.COMPLETE),
    }


@pytest.mark.parametrize(
    ("paths", "param"),
    [([], "candidates"), ([[1], []], "candidates.1"), ([[1, VOCAB]], "candidates.0")],
)
def test_bad_candidates_are_refused(paths: list[list[int]], param: str) -> None:
    """By index, before any search."""
    with pytest.raises(InvalidQuery) as caught:
        ClosedSet(paths, VOCAB, end=True)
    assert caught.value.param == param


def test_a_constraint_that_leaves_no_first_token_is_refused() -> None:
    """Where all candidates begin with what ends a completion, nothing can begin."""
    limits = DecodingLimits(2, end_token_ids=ENDS, constraint=ClosedSet([[END]], VOCAB, end=True))
    with pytest.raises(InvalidQuery, match="first token"):
        GreedySearch(PROMPT, limits, vocab_size=VOCAB)


def test_states_share_one_trie() -> None:
    """However a path is walked, a state is its node and nothing is copied."""
    start = ClosedSet([(1, 2, 3), (1, 3)], VOCAB, end=True)
    one, other = start.push(1).push(3), start.push(1).push(3)
    assert one._node is other._node
    assert start.push(1)._node is not start._node
