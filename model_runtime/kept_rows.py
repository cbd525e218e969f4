"""Answers about the rows of cached tokens, kept beside their keys and values.

Keys and values make no distribution, so without these a token whose row is asked again would be
fed again. A row is kept under the slot of the token that it follows, which belongs to one path
only and ends when the slot is given away::

    tokens     x0   x1   x2   x3
    slots       7    8    9   10
    kept        7: x1    8: x2    9: x3         asked again: x0 x1 x2 y3
    recalled    7: x1    8: x2                  computed:             y3

Only for queries that say what is worth keeping. One takes about 460 bytes, and 135 to 170 more for
each listed token, which is little beside the keys and values of a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from model_runtime.types import NOTHING, LogprobQuery, LogprobResult, TokenLogprob

MOST_TOP = 8
"""Most probable tokens that are kept of a row; a query that lists more is not kept."""

MOST_SCORED = 64
"""Tokens whose log-prob is kept of one row; past it they are dropped, and kept anew."""


class _Scored(NamedTuple):
    logprob: float
    rank: int


@dataclass(slots=True)
class _Row:
    """The most probable tokens of a distribution, and those that paths go on with."""

    top: tuple[TokenLogprob, ...] = ()
    scored: dict[int, _Scored] = field(default_factory=dict)


class KeptRows:
    """What was answered about the rows of a prefix cache's tokens."""

    def __init__(self) -> None:
        self._by_slot: dict[int, _Row] = {}

    def __len__(self) -> int:
        return len(self._by_slot)

    def keep(
        self, slots: Sequence[int], query: LogprobQuery, first: int, answer: LogprobResult
    ) -> None:
        """Keep rows ``first`` and on, as many as ``slots``: those of the tokens before them.

        ``answer`` begins with row ``first``.
        """
        if query.top_k > MOST_TOP:
            return
        for place, slot in enumerate(slots):
            row = self._by_slot.setdefault(slot, _Row())
            if query.top_k > len(row.top):
                row.top = answer.top[place]
            if len(row.scored) >= MOST_SCORED:
                row.scored.clear()
            scored = _Scored(answer.logprobs[place], answer.ranks[place])
            row.scored[query.tokens[first + place]] = scored

    def recall(self, slots: Sequence[int], query: LogprobQuery, first: int) -> LogprobResult:
        """What a query asks of rows ``first`` and on, up to the first that is not known.

        ``slots`` are those of the tokens before the rows.
        """
        if not self._by_slot or query.summary:
            return NOTHING
        known = list(self._known(slots, query, first))
        return LogprobResult(
            logprobs=tuple(scored.logprob for _, scored in known),
            ranks=tuple(scored.rank for _, scored in known),
            top=tuple(row.top[: query.top_k] for row, _ in known) if query.top_k else (),
        )

    def _known(
        self, slots: Sequence[int], query: LogprobQuery, first: int
    ) -> Iterator[tuple[_Row, _Scored]]:
        for place, slot in enumerate(slots):
            row = self._by_slot.get(slot)
            scored = row.scored.get(query.tokens[first + place]) if row is not None else None
            if row is None or scored is None or len(row.top) < query.top_k:
                return
            yield row, scored

    def forget(self, slots: Iterable[int]) -> None:
        """These slots belong to other tokens now."""
        if self._by_slot:
            for slot in slots:
                self._by_slot.pop(slot, None)
