"""Which rows of a batch go through the head, each once, and what is wanted of them."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.types import LogprobQuery


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
        self.floors: list[float | None] = []
        self.summaries: list[bool] = []
        self.gather_head: list[int] = []
        self.gather_ids: list[int] = []
        self._gathers: dict[tuple[int, int], int] = {}

    def ask(
        self, query: LogprobQuery, rows: range, batch_rows: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ask for ``rows`` of a query, which lie at ``batch_rows``.

        Returns:
            The head row of each, and the gathers of what the query wants there, in order.
        """
        heads = tuple(self._head(batch_row, query) for batch_row in batch_rows)
        gathers: list[int] = []
        for row, head in zip(rows, heads, strict=True):
            ids = (query.targets or ()) if row == len(query.tokens) else (query.tokens[row],)
            gathers += (self._gather(head, token_id) for token_id in ids)
        return heads, tuple(gathers)

    def _gather(self, head: int, token_id: int) -> int:
        found = self._gathers.setdefault((head, token_id), len(self.gather_ids))
        if found == len(self.gather_ids):
            self.gather_head.append(head)
            self.gather_ids.append(token_id)
        return found

    def _head(self, batch_row: int, query: LogprobQuery) -> int:
        head = self.index.get(batch_row)
        if head is None:
            head = self.index[batch_row] = len(self.index)
            self.top_k.append(query.top_k)
            self.floors.append(query.floor)
            self.summaries.append(query.summary)
            return head
        self.top_k[head] = max(self.top_k[head], query.top_k)
        self.floors[head] = _lower(self.floors[head], query.floor)
        self.summaries[head] = self.summaries[head] or query.summary
        return head


def _lower(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
