"""Tables for people: aligned columns, coloured on a terminal, plain wherever else they go.

What a model or a server says is spelled out before it is printed: a token may hold a line break or
the codes that drive a terminal.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Final, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = str | tuple[str, str]
"""A text, or a text and its style in rich's words, as "bold green"."""

LONGEST: Final = 60
"""Columns that a quoted text takes at most."""
UNCUT: Final = 1_000_000
"""Columns of whatever is no terminal."""


class Page:
    """Lines that are written at once.

    Args:
        out: where they go.

    On a terminal a table's texts are cut so that its rows fit; elsewhere nothing is.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self.is_terminal = self._out.isatty()
        width, height = shutil.get_terminal_size() if self.is_terminal else (UNCUT, 1)
        self._console = Console(
            file=self._out,
            width=width,
            height=height,
            markup=False,
            emoji=False,
            highlight=False,
        )
        self._console.begin_capture()

    def line(self, text: str = "", style: str = "") -> None:
        """One line."""
        self._console.print(Text(printable(text), style), soft_wrap=True)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Rows under heads. A head that begins with ``>`` is of a column of numbers."""
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
        for head in heads:
            is_number = head.startswith(">")
            table.add_column(
                printable(head.removeprefix(">")),
                justify="right" if is_number else "left",
                no_wrap=is_number,
            )
        for row in rows:
            table.add_row(*map(_text, row))
        self._console.print(table, crop=False)

    def write(self) -> None:
        """Print all lines. What the output's encoding lacks is spelled out."""
        lines = self._console.end_capture().splitlines()
        text = "".join(f"{line.rstrip()}\n" for line in lines)
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._out.flush()


def _text(cell: Cell) -> Text:
    text, style = (cell, "") if isinstance(cell, str) else cell
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def quoted(text: str, longest: int = LONGEST) -> str:
    """A text as JSON quotes it, cut to ``longest`` columns, safe to print."""
    shown = printable(json.dumps(text, ensure_ascii=False))
    return shown if cell_len(shown) <= longest else set_cell_size(shown, longest - 2) + '…"'


def printable(text: str, keep: str = "") -> str:
    """The text with every character that is not one to look at, or in ``keep``, spelled out."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else json.dumps(char)[1:-1] for char in text
    )


def number(value: float | None, places: int = 4) -> str:
    """A number with so many decimals; nothing for null."""
    return "" if value is None else f"{value:.{places}f}"


def percent(value: float | None) -> str:
    """A probability as a share of a hundred; what is tiny keeps its order of magnitude."""
    if value is None:
        return ""
    return f"{value:.2%}" if value >= 0.0001 or value == 0 else f"{100 * value:.0e}%"


def bar(share: float, width: int = 20) -> str:
    """A bar whose full width is a share of 1, in eighths of a column."""
    eighths = math.floor(8 * width * min(max(share, 0.0), 1.0) + 0.5)
    full, part = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")
