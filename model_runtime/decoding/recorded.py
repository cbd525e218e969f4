"""A search that remembers what it asked and what it was told, so that its tree can be shown."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from model_runtime.decoding.base import AnytimeStrategy, SearchStrategy
from model_runtime.types import LogprobQuery, LogprobResult, QueryResult

R = TypeVar("R")

MAX_NUMBERS = 1 << 20
"""Numbers that are remembered of a search, 8 bytes each: those of the prefixes' tokens, and two of
a continuation."""


@dataclass(frozen=True, slots=True)
class ExpandedPrefix:
    """A prefix whose continuations the model was asked for.

    Attributes:
        tokens: [n] generated so far; empty for the prompt itself.
        step: the round of the search in which it was first asked, from 0.
        ids, logprobs: [m] of the continuations that the search was told of, best first.
    """

    tokens: tuple[int, ...]
    step: int
    ids: array[int]
    logprobs: array[float]


class RecordedSearch(Generic[R]):
    """The same search, to the bit. A ``SearchStrategy``, and an ``AnytimeStrategy`` if that is one.

    Args:
        search: that is run.
        prompt_length: tokens of its paths that were not generated.
    """

    def __init__(self, search: SearchStrategy[R], prompt_length: int) -> None:
        self._search = search
        self._prompt_length = prompt_length
        self._asked: Sequence[LogprobQuery] = ()
        self._step = 0
        self._prefixes: dict[tuple[int, ...], ExpandedPrefix] = {}
        self._numbers = 0
        self.remembered = 0
        """Continuations that are remembered."""
        self.forgotten = 0
        """Continuations for which there was no room."""
        self.cost = search.cost
        self.longest_path = search.longest_path

    @property
    def prefixes(self) -> Sequence[ExpandedPrefix]:
        """What was asked, in that order."""
        return tuple(self._prefixes.values())

    @property
    def done(self) -> bool:
        """As the search says."""
        return self._search.done

    def queries(self) -> Sequence[LogprobQuery]:
        """Those of the search."""
        self._asked = self._search.queries()
        return self._asked

    def advance(self, answers: Sequence[QueryResult]) -> None:
        """Remember the answers, and pass them on. Raises what the search raises."""
        for query, answer in zip(self._asked, answers, strict=True):
            if isinstance(answer, LogprobResult):
                self._remember(query, answer)
        self._step += 1
        self._search.advance(answers)

    def finish_early(self) -> bool:
        """As the search does; False where it cannot."""
        search: object = self._search
        return isinstance(search, AnytimeStrategy) and search.finish_early()

    def result(self) -> R:
        """That of the search."""
        return self._search.result()

    def _remember(self, query: LogprobQuery, answer: LogprobResult) -> None:
        tokens = query.tokens[self._prompt_length :]
        told = {choice.id: choice.logprob for choice in answer.choices}
        for row in answer.top or ():
            told.update((entry.id, entry.logprob) for entry in row)
        # Where a prefix is asked again for more, the new answer begins with the old one.
        known = self._prefixes.get(tokens)
        before = 0 if known is None else len(known.ids)
        numbers = 2 * (len(told) - before) + (len(tokens) if known is None else 0)
        if self._numbers + numbers > MAX_NUMBERS:
            self.forgotten += max(0, len(told) - before)
            return
        self._numbers += numbers
        best = sorted(told.items(), key=lambda one: (-one[1], one[0]))
        self.remembered += len(best) - before
        self._prefixes[tokens] = ExpandedPrefix(
            tokens,
            self._step if known is None else known.step,
            array("q", (token_id for token_id, _ in best)),
            array("d", (logprob for _, logprob in best)),
        )
