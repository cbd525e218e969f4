"""Tables for people: aligned columns, coloured on a terminal, plain wherever else they go.

What a model or a server says is spelled out before it is printed: a token may hold a line break or
the codes that drive a terminal.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TextIO

from app.environment import terminal_wants_colour

Colour = Literal["bold", "dim", "red", "green", "yellow", "cyan"]

_CODES: Final[dict[Colour, str]] = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
}
LONGEST: Final = 60
"""Columns that a quoted text takes at most."""
LEAST: Final = 8
"""Columns that a text is left, however narrow the terminal; numbers are never cut."""


class Cell:
    """A text and its colours."""

    def __init__(self, text: str, *colours: Colour) -> None:
        self.text = printable(text)
        self.colours = colours


class Page:
    """Lines that are written at once.

    Args:
        out: where they go.
        coloured: whether they may hold colours; null asks whether ``out`` is a terminal.

    On a terminal a table's texts are cut so that its rows fit; elsewhere nothing is.
    """

    def __init__(self, out: TextIO | None = None, coloured: bool | None = None) -> None:
        self._out = out or sys.stdout
        self._room = shutil.get_terminal_size().columns if self._out.isatty() else None
        self.coloured = (
            self._out.isatty() and terminal_wants_colour() if coloured is None else coloured
        )
        self._lines: list[str] = []

    def paint(self, text: str, *colours: Colour) -> str:
        """The text in these colours, where there are any."""
        if not (self.coloured and colours and text):
            return text
        return f"\x1b[{';'.join(_CODES[colour] for colour in colours)}m{text}\x1b[0m"

    def line(self, text: str = "", *colours: Colour) -> None:
        """One line."""
        self._lines.append(self.paint(printable(text), *colours))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> None:
        """Rows under heads. A head that begins with ``>`` is of a column of numbers."""
        cells = [[one if isinstance(one, Cell) else Cell(one) for one in row] for row in rows]
        names = [head.removeprefix(">") for head in heads]
        widths = [
            max(_width(name), *(_width(row[place].text) for row in cells), 0)
            for place, name in enumerate(names)
        ]
        right = [head.startswith(">") for head in heads]
        if self._room is not None:
            widths = fitted(widths, right, self._room)
        self._row([Cell(name, "bold") for name in names], widths, right)
        for row in cells:
            self._row(row, widths, right)

    def write(self) -> None:
        """Print all lines. What the output's encoding lacks is spelled out."""
        text = "".join(f"{line}\n" for line in self._lines)
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._out.flush()
        self._lines.clear()

    def _row(self, row: Sequence[Cell], widths: Sequence[int], right: Sequence[bool]) -> None:
        parts = []
        for cell, width, to_right in zip(row, widths, right, strict=True):
            shown = cut(cell.text, width)
            space = " " * (width - _width(shown))
            text = self.paint(shown, *cell.colours)
            parts.append(space + text if to_right else text + space)
        self._lines.append("  ".join(parts).rstrip())


def fitted(widths: Sequence[int], numbers: Sequence[bool], room: int) -> list[int]:
    """The widths of columns, the widest texts narrowed until all fit, or cannot be narrowed."""
    found = list(widths)
    texts = [place for place, is_number in enumerate(numbers) if not is_number]
    while sum(found) + 2 * (len(found) - 1) > room:
        widest = max(texts, key=found.__getitem__, default=None)
        if widest is None or found[widest] <= LEAST:
            break
        found[widest] -= 1
    return found


def cut(text: str, width: int) -> str:
    """The text, or as much of it as fits before an ellipsis."""
    if _width(text) <= width:
        return text
    while text and _width(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def quoted(text: str, longest: int = LONGEST) -> str:
    """A text as JSON quotes it, cut to ``longest`` columns, safe to print."""
    shown = printable(json.dumps(text, ensure_ascii=False))
    if _width(shown) <= longest:
        return shown
    while _width(shown) > longest - 2:
        shown = shown[: min(len(shown) - 1, longest - 2)]
    return shown + '…"'


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


def _width(text: str) -> int:
    """Columns of a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
