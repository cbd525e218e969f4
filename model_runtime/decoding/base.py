"""What every search strategy is: a state machine that asks, takes answers, and asks again.

Strategies are sans-I/O. They run no model and know no text; the scheduler feeds them on the
model thread, between forwards. Scoring is the strategy that asks once (``SingleRound``).

    queries() ──> forward ──> advance(results) ──> done? ──no──> queries() ...
                                                   └──yes─> result()
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from model_runtime.batching.trie import rows_cost
from model_runtime.token_paths import path_order
from model_runtime.types import LogprobQuery, QueryResult

R_co = TypeVar("R_co", covariant=True)


class SearchStrategy(Protocol[R_co]):
    """One request's search through token paths."""

    @property
    def cost(self) -> int:
        """Tokens that the model is fed on its behalf, as far as it holds room for them.

        Known before it runs, and an upper bound, save for searches with a budget that is
        larger than what they may hold.
        """
        ...

    @property
    def longest_path(self) -> int:
        """Tokens of the longest path that it may ask about, the last scored one included."""
        ...

    @property
    def done(self) -> bool:
        """True once ``result`` may be called; ``queries`` is not called after that."""
        ...

    def queries(self) -> Sequence[LogprobQuery]:
        """What is to be asked next; at least one query while not done."""
        ...

    def advance(self, answers: Sequence[QueryResult]) -> None:
        """Take the answers to the last ``queries``, in their order.

        Raises:
            ChainruleError: the search cannot go on; the request ends with it.
        """
        ...

    def result(self) -> R_co:
        """The outcome, once done."""
        ...


@runtime_checkable
class AnytimeStrategy(Protocol):
    """A search that may have a result before it is done."""

    def finish_early(self) -> bool:
        """End now with what is there: ``result`` may be called. False: there is nothing yet."""
        ...


SORTED = 1_000
"""Queries from which on they are asked in the order of their paths: batches take them in turn, and
tokens that they share are fed once where they stand side by side."""


@runtime_checkable
class Gradual(Protocol):
    """A search that takes long over many answers, and lets others go first meanwhile."""

    def advance_gradually(self, answers: Sequence[QueryResult]) -> Iterator[None]:
        """As ``advance``, in parts: whatever is to be done in the meantime is done at a yield."""
        ...


class SingleRound:
    """Scoring and next-token requests: one round of queries, answered in their order.

    Args:
        queries: what is asked.
        cost: tokens that the model is fed for them; that of their rows is added to it.
    """

    def __init__(self, queries: Sequence[LogprobQuery], cost: int) -> None:
        self._queries = tuple(queries)
        self._order: Sequence[int] | None = None
        if len(queries) > SORTED:
            self._order = path_order([query.tokens for query in queries])
            self._queries = tuple(queries[index] for index in self._order)
        self._answers: tuple[QueryResult, ...] = ()
        self._done = False
        self.fed_tokens = cost
        self.cost = cost + rows_cost(queries)

    @property
    def longest_path(self) -> int:
        return max(len(query.tokens) for query in self._queries)

    @property
    def done(self) -> bool:
        return self._done

    def queries(self) -> Sequence[LogprobQuery]:
        return self._queries

    def advance(self, answers: Sequence[QueryResult]) -> None:
        self._answers = tuple(answers) if self._order is None else _put_back(answers, self._order)
        self._done = True

    def result(self) -> tuple[QueryResult, ...]:
        return self._answers


def _put_back(answers: Sequence[QueryResult], order: Sequence[int]) -> tuple[QueryResult, ...]:
    """Answers that come in ``order``, at their places."""
    found = dict(zip(order, answers, strict=True))
    return tuple(found[index] for index in range(len(found)))
