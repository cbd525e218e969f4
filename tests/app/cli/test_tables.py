"""Tables: alignment, colours, and texts that must not reach a terminal as they are."""

from __future__ import annotations

import io

import pytest

from app.cli.tables import Page, bar, number, percent, printable, quoted
from tests.app.cli.command_line import Terminal


def test_columns_are_aligned_by_what_they_look_like() -> None:
    """Wide characters take two columns, combining ones none; numbers stand to the right."""
    out = io.StringIO()
    page = Page(out)
    page.table(["text", ">n"], [["日本", "1"], ["e\u0301", "10"], ["abcdef", "100"]])
    page.write()
    assert out.getvalue() == "text      n\n日本      1\ne\u0301        10\nabcdef  100\n"


def test_a_table_fits_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest texts are cut and end in an ellipsis; numbers stay, and so do pipes and files."""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    rows = [["a" * 40, "-12.5", "日" * 20], ["b", "1", "c"]]
    shown = []
    for out in (Terminal(), io.StringIO()):
        page = Page(out)
        page.table(["text", ">number", "other"], rows)
        page.write()
        shown.append(out.getvalue())
    assert shown[0].splitlines()[1] == "aaaaaaaaa…   -12.5  日日日日 …"
    assert shown[0].splitlines()[2] == "b                1  c"
    assert "a" * 40 in shown[1]
    assert "日" * 20 in shown[1]


def test_colours_do_not_move_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes take no room."""
    monkeypatch.setenv("TERM", "xterm")
    plain, coloured = io.StringIO(), Terminal()
    for out in (plain, coloured):
        page = Page(out)
        page.table(["a", "b"], [[("x", "red"), ("y", "bold green")], ["long", "z"]])
        page.write()
    stripped = coloured.getvalue()
    for code in ("\x1b[31m", "\x1b[1;32m", "\x1b[1m", "\x1b[0m"):
        assert code in stripped
        stripped = stripped.replace(code, "")
    assert [line.rstrip() for line in stripped.splitlines()] == plain.getvalue().splitlines()


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_may_refuse_colours(
    variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR with any value but the empty one, and terminals that cannot."""
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    shown = []
    for out in (Terminal(), io.StringIO()):
        page = Page(out)
        page.line("x", "red")
        page.write()
        shown.append(out.getvalue())
    assert shown == ["\x1b[31mx\x1b[0m\n" if coloured else "x\n", "x\n"]


def test_no_text_drives_the_terminal() -> None:
    """Line breaks, escape codes and characters that turn a line around are spelled out."""
    out = io.StringIO()
    page = Page(out)
    page.line("a\x1b[31m\nb\u202e")
    page.table(["\x9b"], [["\x07"]])
    page.write()
    assert out.getvalue() == "a\\u001b[31m\\nb\\u202e\n\\u009b\n\\u0007\n"


def test_texts_are_quoted_and_cut() -> None:
    """Spaces show, quotes are escaped, long texts end in an ellipsis within their columns."""
    assert quoted(' "a"\n') == '" \\"a\\"\\n"'
    assert quoted("x" * 100, 10) == '"xxxxxxx…"'
    assert len(quoted("日" * 100, 11)) <= 8


def test_what_the_encoding_lacks_is_spelled_out() -> None:
    """An ASCII terminal gets escapes, not a crash."""
    raw = io.BytesIO()
    page = Page(io.TextIOWrapper(raw, "ascii"))
    page.line("naïve █")
    page.write()
    assert raw.getvalue() == b"na\\xefve \\u2588\n"


def test_kept_characters_stay() -> None:
    """A stream keeps its line breaks."""
    assert printable("a\n\x07", keep="\n") == "a\n\\u0007"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "50.00%"), (1.0, "100.00%"), (0.0, "0.00%"), (3e-7, "3e-05%"), (None, "")],
)
def test_probabilities(value: float | None, text: str) -> None:
    """Two decimals; what is tiny keeps its order of magnitude."""
    assert percent(value) == text


def test_numbers_and_bars() -> None:
    """Nothing for null; a bar in eighths, never longer than its width."""
    assert (number(None), number(-1.0), number(2.5, 1)) == ("", "-1.0000", "2.5")
    assert (bar(0.0), bar(0.5, 2), bar(2.0, 2), bar(1 / 16, 2)) == ("", "█", "██", "▏")
