"""A Markdown table on standard output."""

from __future__ import annotations

import torch


class Table:
    """Printed row by row, so that a long benchmark shows what it has.

    Args:
        title: what was measured, and how.
        columns: their headings.
    """

    def __init__(self, title: str, *columns: str) -> None:
        self._columns = len(columns)
        print(f"\n{title}; {torch.get_num_threads()} threads\n")
        self.row(*columns)
        self.row(*["---"] * len(columns))

    def row(self, *cells: str) -> None:
        """One line.

        Raises:
            ValueError: not one cell for each column.
        """
        if len(cells) != self._columns:
            raise ValueError(f"{len(cells)} cells for {self._columns} columns")
        print(f"| {' | '.join(cells)} |", flush=True)
