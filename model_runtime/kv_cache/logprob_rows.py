"""Answers about the rows of cached tokens, kept beside their keys and values.

Keys and values make no distribution, so without these a token whose row is asked again would be
fed again. A row is kept under the slot of the token that it follows, which belongs to one path
only and ends when the slot is given away::

    tokens     x0   x1   x2   x3
    slots       7    8    9   10
    kept        7: x1    8: x2    9: x3         asked again: x0 x1 x2 y3
    looked up   7: x1    8: x2                  computed:             y3

Only for queries that say what is worth keeping, and within a bound in bytes: what was neither kept
nor looked up for longest goes first, of one path its end before its beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from model_runtime.types import EMPTY_RESULT, LogprobQuery, LogprobResult, TokenLogprob

MOST_TOP = 8
"""Most probable tokens that are kept of a row; a query that lists more is not kept."""

MOST_SCORED = 64
"""Tokens whose log-prob is kept of one row; past it they are dropped, and kept anew."""

ROW_BYTES = 500
LISTED_BYTES = 160
SCORED_BYTES = 200
"""Of a row, of each most probable token in it, and of each token whose log-prob it keeps: at most,
measured, where ids and ranks are too large to be shared."""

SHARE = 16
"""Rows may take so small a part of what keys and values take, beside it."""


def row_budget(kv_bytes: int) -> int:
    """Bytes that rows may take beside so many bytes of keys and values."""
    return kv_bytes // SHARE


class _Scored(NamedTuple):
    logprob: float
    rank: int


@dataclass(slots=True)
class _Row:
    """The most probable tokens of a distribution, and those that paths go on with."""

    top: tuple[TokenLogprob, ...] = ()
    scored: dict[int, _Scored] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return ROW_BYTES + LISTED_BYTES * len(self.top) + SCORED_BYTES * len(self.scored)


class LogprobRowCache:
    """What was answered about the rows of a prefix cache's tokens.

    Args:
        max_bytes: that all of it may take.

    Attributes:
        bytes: that it takes, counted from above; may be read from any thread.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._by_slot: OrderedDict[int, _Row] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_slot)

    def insert(
        self, slots: Sequence[int], query: LogprobQuery, first: int, answer: LogprobResult
    ) -> None:
        """Keep rows ``first`` and on, as many as ``slots``: those of the tokens before them.

        ``answer`` begins with row ``first``.
        """
        if query.top_k > MOST_TOP:
            return
        for place, slot in reversed(list(enumerate(slots))):
            row = self._take(slot) or _Row()
            if query.top_k > len(row.top):
                row.top = answer.top[place]
            if len(row.scored) >= MOST_SCORED:
                row.scored.clear()
            scored = _Scored(answer.logprobs[place], answer.ranks[place])
            row.scored[query.tokens[first + place]] = scored
            self._by_slot[slot] = row
            self.bytes += row.bytes
            while self.bytes > self._max_bytes:
                self._take(next(iter(self._by_slot)))

    def lookup(self, slots: Sequence[int], query: LogprobQuery, first: int) -> LogprobResult:
        """What a query asks of rows ``first`` and on, up to the first that is not known.

        ``slots`` are those of the tokens before the rows.
        """
        if not self._by_slot or query.summary:
            return EMPTY_RESULT
        known = list(self._known(slots, query, first))
        for slot in reversed(slots[: len(known)]):
            self._by_slot.move_to_end(slot)
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

    def invalidate(self, slots: Iterable[int]) -> None:
        """These slots belong to other tokens now."""
        if self._by_slot:
            for slot in slots:
                self._take(slot)

    def _take(self, slot: int) -> _Row | None:
        """The row of a slot, which is not kept any more."""
        row = self._by_slot.pop(slot, None)
        if row is not None:
            self.bytes -= row.bytes
        return row
