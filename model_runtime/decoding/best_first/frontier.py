"""What a best-first search has seen and not yet looked behind.

An expanded path stands in the frontier once, with the best of its continuations that is still
to come; the others wait behind that one in its row. What the row did not list comes last: it
is bounded by the last token listed, and asked for where it matters::

    node      row, most probable first          place
    x  ────   a  b  c  d │ (not listed)           ^ c: a and b were looked behind
              sum of x + log P(c | x) bounds all of what is left here

So nothing is stored for a continuation before its turn comes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from model_runtime.decoding.hypothesis_path import NextTokens, PartialHypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.objective import Objective

NODE_WORDS = 100
"""About the 8-byte words that a path takes beside its tokens and its row."""

CHOICE_WORDS = 18
"""About the 8-byte words that a listed token takes."""


class ExpandedNode:
    """An expanded path and which of its continuations are still to come.

    Attributes:
        prefix: the path.
        row: its listed continuations, most probable first.
        count: how many were asked for last.
        complete: all that matter are listed: fewer came back than were asked for.
        place: the next continuation; the number of those listed where only the others are left.
        visited: places that were looked at out of turn.
    """

    __slots__ = ("complete", "count", "place", "prefix", "row", "visited")

    def __init__(self, prefix: PartialHypothesis, row: NextTokens, count: int) -> None:
        self.prefix = prefix
        self.row = row
        self.count = count
        self.complete = len(row.choices) < count
        self.place = 0
        self.visited: set[int] = set()

    @property
    def listed(self) -> bool:
        """The next continuation is a listed one."""
        return self.place < len(self.row.choices)

    @property
    def exhausted(self) -> bool:
        """Nothing is left here, listed or not."""
        return not self.listed and self.complete

    @property
    def size_words(self) -> int:
        """About the 8-byte words of memory that it takes."""
        listed = len(self.row.choices) + len(self.row.top)
        state = self.prefix.constraint
        held = len(self.prefix.tokens) + (0 if state is None else state.size_words)
        return NODE_WORDS + held + CHOICE_WORDS * listed

    def logprob(self, place: int) -> float:
        """The sum of the path with its continuation at ``place``."""
        return self.prefix.logprob + self.row.choices[place].logprob

    def bound(self, objective: Objective) -> float:
        """No completion that is left here scores more."""
        last = len(self.row.choices) - 1
        return objective.bound(self.logprob(min(self.place, last)), self.prefix.length + 1)

    def child(self, place: int, limits: DecodingLimits) -> PartialHypothesis:
        """The path with its continuation at ``place``, finished or not."""
        return self.prefix.extend(self.row, place, limits)

    def by_total(self, index: int) -> Iterator[tuple[float, int, int]]:
        """(- sum, ``index``, place) of each continuation not looked at yet, best first."""
        for place in range(self.place, len(self.row.choices)):
            if place not in self.visited:
                yield -self.logprob(place), index, place

    def widen(self, row: NextTokens, count: int) -> None:
        """Take what a longer row of the same path has beside what was listed before.

        Where a row is computed again to the bit, what was listed begins it; elsewhere two nearly
        equal tokens may have changed places.
        """
        known = {token.id for token in self.row.choices}
        more = [token for token in row.choices if token.id not in known]
        self.row = NextTokens((*self.row.choices, *more), row.top)
        self.count = count
        self.complete = len(row.choices) < count

    def advance(self) -> None:
        """Go on to the next continuation."""
        self.place += 1
        self.skip()

    def skip(self) -> None:
        """Pass over continuations that were looked at out of turn."""
        while self.place in self.visited:
            self.place += 1


class Frontier:
    """Nodes by falling bound; of equal ones the longer path, then the older node, comes first.

    Args:
        objective: gives the bounds.
        wants: whether completions of at most this score still matter. Once not, never again.

    Attributes:
        size_words: about the 8-byte words of memory that the nodes take.
    """

    def __init__(self, objective: Objective, wants: Callable[[float], bool]) -> None:
        self.size_words = 0
        self._objective = objective
        self._wants = wants
        self._heap: list[tuple[float, int, int, ExpandedNode]] = []
        self._serials = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def bound(self) -> float | None:
        """No completion behind the frontier scores more; None where none is left that matters."""
        if not self._heap or not self._wants(-self._heap[0][0]):
            return None
        return -self._heap[0][0]

    @property
    def best(self) -> ExpandedNode:
        """The node with the best continuation of all."""
        return self._heap[0][-1]

    def push(self, node: ExpandedNode) -> None:
        """Add a node, unless nothing that is left there matters."""
        if node.exhausted:
            return
        bound = node.bound(self._objective)
        if self._wants(bound):
            self.size_words += node.size_words
            heapq.heappush(self._heap, (-bound, -node.prefix.length, next(self._serials), node))

    def pop(self) -> ExpandedNode:
        """Take the best node out."""
        node = heapq.heappop(self._heap)[-1]
        self.size_words -= node.size_words
        return node

    def trim(self) -> None:
        """Forget the nodes that do not matter any more."""
        self._heap = [entry for entry in self._heap if self._wants(-entry[0])]
        heapq.heapify(self._heap)
        self.size_words = sum(entry[-1].size_words for entry in self._heap)


@dataclass(frozen=True, slots=True)
class Expansion:
    """One query of a round.

    Attributes:
        prefix: the path whose continuations are asked for.
        bound: no completion behind it, as far as it was not looked at, scores more.
        count: continuations listed at most.
        node: the same path where it was asked before and more of its continuations are needed.
        in_beam: the beam search goes on from here.
    """

    prefix: PartialHypothesis
    bound: float
    count: int
    node: ExpandedNode | None = None
    in_beam: bool = False
