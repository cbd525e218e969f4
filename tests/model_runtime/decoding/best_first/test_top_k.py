"""The best completions so far, and what may still come in."""

from __future__ import annotations

import itertools
import math

from model_runtime.decoding.best_first.top_k import TopK
from model_runtime.decoding.hypothesis_path import PartialHypothesis


def path(*tokens: int) -> PartialHypothesis:
    return PartialHypothesis(tokens, len(tokens))


def test_any_order_of_arrival_gives_the_same_places() -> None:
    """By score, then the shorter, then by tokens, also at the last place."""
    offers = [
        (-1.0, path(3)),
        (-2.0, path(2)),
        (-2.0, path(1, 1)),
        (-2.0, path(1)),
        (-3.0, path(0)),
    ]
    for order in itertools.permutations(offers):
        best = TopK(3)
        for score, prefix in order:
            best.offer(score, prefix)
        assert [found.prefix.tokens for found in best.found] == [(3,), (1,), (2,)]


def test_while_a_place_is_free_everything_possible_is_wanted() -> None:
    """What has no probability is not possible; once full only what is better is wanted."""
    best = TopK(1)
    assert best.wants(-1e300)
    assert not best.wants(-math.inf)
    best.offer(-math.inf, path(1))
    assert best.found == []
    best.offer(-2.0, path(1))
    assert best.full
    assert not best.wants(-2.0)
    assert best.wants(-1.9)


def test_a_floor_lets_in_what_reaches_it() -> None:
    """And nothing below, though places are free; it is complete until all are taken."""
    best = TopK(2, floor=-2.0)
    assert best.wants(-2.0)
    assert not best.wants(-2.1)
    best.offer(-2.1, path(1))
    best.offer(-2.0, path(2))
    assert [found.score for found in best.found] == [-2.0]
    assert best.complete
    best.offer(-1.0, path(3))
    assert best.cut == -2.0
    assert not best.wants(-2.0)
    assert not best.complete


def test_without_a_floor_nothing_is_missing() -> None:
    """Only the best are wanted, so taking every place leaves nothing out."""
    best = TopK(1)
    best.offer(-1.0, path(1))
    assert best.complete
