"""What waits to be expanded: its order, its bounds, its memory."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.decoding.best_first.frontier import ExpandedNode, Frontier
from model_runtime.decoding.best_first.top_k import TopK
from model_runtime.decoding.hypothesis_path import NextTokens, PartialHypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.objective import Objective
from model_runtime.types import RankedLogprob

LIMITS = DecodingLimits(8)
OBJECTIVE = Objective(0.0, 1, 8)


def node(*logprobs: float, count: int = 99, length: int = 0, logprob: float = 0.0) -> ExpandedNode:
    """A path and the log-probs of its listed continuations."""
    row = NextTokens(tuple(RankedLogprob(i, value, 1 + i) for i, value in enumerate(logprobs)))
    return ExpandedNode(PartialHypothesis((7,) * (1 + length), length, logprob), row, count)


def frontier(*nodes: ExpandedNode, best: TopK | None = None) -> Frontier:
    made = Frontier(OBJECTIVE, (best or TopK(1)).wants)
    for each in nodes:
        made.push(each)
    return made


def drained(waiting: Frontier) -> list[float]:
    """All bounds in the order in which they come up."""
    bounds = []
    while waiting.bound is not None:
        bounds.append(waiting.bound)
        best = waiting.pop()
        best.advance()
        waiting.push(best)
    return bounds


def test_continuations_of_all_paths_come_up_by_falling_bound() -> None:
    """A path stands there once, and yet each of its continuations has its turn."""
    waiting = frontier(node(-1.0, -4.0, -5.0), node(-1.0, -1.5, logprob=-1.0), node())
    assert len(waiting) == 2
    assert drained(waiting) == [-1.0, -2.0, -2.5, -4.0, -5.0]


def test_of_equal_bounds_the_longer_path_comes_first_then_the_older() -> None:
    """So the order is the same every time."""
    first, second, longer = node(-1.0), node(-1.0), node(-1.0, length=3)
    waiting = frontier(first, second, longer)
    assert [waiting.pop() for _ in range(3)] == [longer, first, second]


def test_what_was_looked_at_out_of_turn_does_not_come_up() -> None:
    """At the head of the row or further behind."""
    early = node(-1.0, -2.0, -3.0, -4.0)
    early.visited |= {0, 2}
    early.skip()
    assert drained(frontier(early)) == [-2.0, -4.0]


def test_what_a_full_row_did_not_list_is_bounded_by_its_last_token() -> None:
    """As many as were asked for may not be all; fewer are."""
    full = node(-1.0, -2.0, count=2)
    waiting = frontier(full)
    waiting.pop()
    full.advance()
    full.advance()
    assert not full.listed
    assert not full.exhausted
    waiting.push(full)
    assert waiting.bound == -2.0
    full.widen(node(-1.0, -2.0, -2.5).row, 4)
    assert full.bound(OBJECTIVE) == -2.5
    full.advance()
    assert full.exhausted


def test_what_cannot_matter_is_not_kept() -> None:
    """Neither pushed nor, once others are better, found in the way."""
    best = TopK(1)
    waiting = frontier(node(-1.0), node(-3.0), best=best)
    best.offer(-2.0, PartialHypothesis((7,)))
    waiting.push(node(-2.0))
    assert len(waiting) == 2
    assert waiting.bound == -1.0
    waiting.pop()
    assert waiting.bound is None


def words_of(nodes: Sequence[ExpandedNode]) -> int:
    return sum(each.size_words for each in nodes)


def test_memory_is_counted_and_given_back() -> None:
    """Words are those of the stems that are there, and trimming forgets what is useless."""
    best, nodes = TopK(1), [node(-1.0, -2.0), node(-3.0, -4.0, -5.0), node(-6.0)]
    waiting = frontier(*nodes, best=best)
    assert waiting.size_words == words_of(nodes)
    waiting.pop()
    assert waiting.size_words == words_of(nodes[1:])
    best.offer(-4.0, PartialHypothesis((7,)))
    waiting.trim()
    assert len(waiting) == 1
    assert waiting.size_words == nodes[1].size_words
    assert waiting.best is nodes[1]


def test_a_longer_row_adds_what_it_has_beside_the_first() -> None:
    """Also where nearly equal tokens have changed places: none comes twice, none is lost."""
    path = node(-1.0, -2.0, count=2)
    longer = [RankedLogprob(i, p, 1) for i, p in ((0, -1.0), (5, -1.9), (1, -2.0), (6, -3.0))]
    path.widen(NextTokens(tuple(longer)), 8)
    assert [token.id for token in path.row.choices] == [0, 1, 5, 6]
    assert path.complete
    assert not node(-1.0, -2.0, count=2).complete
