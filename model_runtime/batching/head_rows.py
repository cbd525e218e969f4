"""Which rows of a batch go through the head, each once, and what is wanted of them."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.types import LogprobQuery

_ID_BITS = 32
_ID_MASK = (1 << _ID_BITS) - 1
"""A gather is known by one number, the head row above the bits of the token id: there may be
millions, and a pair takes twice as long."""


class HeadRows:
    """Collects what queries ask. Attributes are those of ``Batch``; H rows, G gathers.

    The one-position shift happens here: the batch row that was fed the token at position
    p - 1 carries the distribution of position p, so it is asked for ``tokens[p]``::

        fed       x0   x1   x2   y0
        predicts  x1   x2   y0   y1
    """

    def __init__(self) -> None:
        self.index: dict[int, int] = {}
        self.top_k: list[int] = []
        self.summaries: list[bool] = []
        self._gathers: dict[int, int] = {}

    @property
    def gather_head(self) -> list[int]:
        return [key >> _ID_BITS for key in self._gathers]

    @property
    def gather_ids(self) -> list[int]:
        return [key & _ID_MASK for key in self._gathers]

    def add(
        self, query: LogprobQuery, rows: range, batch_rows: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ask for ``rows`` of a query, which lie at ``batch_rows``.

        Returns:
            The head row of each, and the gathers of what the query wants there, in order.
        """
        number = self.index.setdefault
        heads = tuple([number(row, len(self.index)) for row in batch_rows])
        self._want(query, heads)
        gather = self._gathers.setdefault
        scored = query.tokens[rows.start : rows.stop]
        gathers = [
            gather(head << _ID_BITS | token_id, len(self._gathers))
            for head, token_id in zip(heads, scored, strict=False)
        ]
        if rows.stop > len(query.tokens):
            last = heads[-1] << _ID_BITS
            gathers += [gather(last | id_, len(self._gathers)) for id_ in query.targets or ()]
        return heads, tuple(gathers)

    def _want(self, query: LogprobQuery, heads: Sequence[int]) -> None:
        """Note what a query wants of head rows beside its gathers; most want nothing."""
        new = len(self.index) - len(self.top_k)
        self.top_k += [0] * new
        self.summaries += [False] * new
        if not query.top_k and not query.summary:
            return
        for head in heads:
            self.top_k[head] = max(self.top_k[head], query.top_k)
            self.summaries[head] = self.summaries[head] or query.summary
