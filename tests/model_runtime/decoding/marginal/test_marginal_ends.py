"""How marginal searches end early, fail, or are refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from model_runtime.decoding.marginal.cover_states import MarginalCandidate
from model_runtime.decoding.marginal.covers import MarginalResult
from model_runtime.decoding.marginal.marginal import MarginalSearch
from model_runtime.errors import (
    ChainruleError,
    DeadlineExceeded,
    InvalidQuery,
    NonFiniteLogits,
    PathTooLong,
)
from model_runtime.types import QueryResult
from tests.model_runtime.decoding.marginal.spelling_world import World
from tests.model_runtime.decoding.table import PROMPT, random_table


def test_a_failed_query_ends_its_candidate_alone() -> None:
    """The others go on."""
    world = World((b"a", b"b", b"ab"), random_table(6, 5))
    search = world.search(MarginalCandidate(b"aa"), MarginalCandidate(b"bb"))
    while not search.done:
        answers: list[QueryResult] = [
            NonFiniteLogits("broken") if query.tokens[-1] == 0 else world.answer(query)
            for query in search.queries()
        ]
        search.advance(answers)
    failed, fine = search.result()
    assert isinstance(failed, NonFiniteLogits)
    assert fine == world.find(MarginalCandidate(b"bb"))


def test_bounds_are_given_when_time_runs_out() -> None:
    """Whoever's own tokens were asked about has bounds; the others an error."""
    world = World((b"a", b"b", b"ab", b"ba"), random_table(7, 6))
    some = [MarginalCandidate(b"ab" * 20, preferred=(2,) * 20) for _ in range(7)]
    search = world.search(*some)
    assert not search.finish_early()
    search = world.search(*some)
    search.advance([world.answer(query) for query in search.queries()])
    assert search.finish_early() and search.done
    *begun, late = search.result()
    one = world.find(some[0], budget=20)
    for early in begun[:4]:
        assert isinstance(early, MarginalResult) and early.lower == one.lower
        assert early.upper == pytest.approx(one.upper)
    assert isinstance(late, DeadlineExceeded)


def test_what_is_in_flight_when_time_runs_out_still_counts() -> None:
    """Its mass is in the upper bound."""
    world = World((b"a", b"b", b"ab", b"ba"), random_table(8, 6))
    candidate = MarginalCandidate(b"ababab", preferred=(2, 2, 2))
    search = world.search(candidate)
    search.advance([world.answer(query) for query in search.queries()])
    assert search.queries() and search.finish_early()
    (early,) = search.result()
    truth = world.truth(candidate.content)
    assert isinstance(early, MarginalResult) and not early.exact
    assert early.lower < truth < early.upper


def test_paths_that_the_model_cannot_hold_stay_open() -> None:
    """A spelling longer than the model takes is left in the upper bound."""
    world = World((b"a", b"b", b"ab"), random_table(9, 5))
    candidate = MarginalCandidate(b"abab", preferred=(2, 2))
    search = MarginalSearch(
        PROMPT, [candidate], world.trie, max_expansions=99, max_model_len=len(PROMPT) + 2
    )
    assert search.longest_path == len(PROMPT) + 2
    (result,) = world.run(search)
    truth = world.truth(b"abab")
    assert isinstance(result, MarginalResult) and not result.exact
    assert result.lower < truth < result.upper
    assert result.longest <= 2


@pytest.mark.parametrize(
    ("prefix", "content", "own", "budget", "longest", "kind", "param"),
    [
        ((), b"a", (), 1, 64, InvalidQuery, "context"),
        ((1,), b"", (), 1, 64, InvalidQuery, "candidates"),
        ((1,), b"a", (), 0, 64, InvalidQuery, "max_expansions"),
        ((1,), b"ab", (1,), 1, 64, InvalidQuery, "candidates"),
        ((1,), b"ab", (0,), 1, 64, InvalidQuery, "candidates"),
        ((1,), b"ab", (0, 1), 1, 2, PathTooLong, "candidates"),
    ],
)
def test_impossible_settings_are_refused(
    prefix: Sequence[int],
    content: bytes,
    own: tuple[int, ...],
    budget: int,
    longest: int,
    kind: type[ChainruleError],
    param: str,
) -> None:
    """Before anything is asked, by name."""
    world = World((b"a", b"b"), random_table(1, 4))
    with pytest.raises(kind) as caught:
        MarginalSearch(
            prefix,
            [MarginalCandidate(content, own)],
            world.trie,
            max_expansions=budget,
            max_model_len=longest,
        )
    assert isinstance(caught.value, InvalidQuery) and caught.value.param == param
