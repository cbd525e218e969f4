"""Listed tokens as columns."""

from __future__ import annotations

from model_runtime.logprobs.columns import TokenColumns
from model_runtime.types import RankedLogprob

ROW = (RankedLogprob(7, -0.5, 1), RankedLogprob(3, -1.0, 2), RankedLogprob(9, -1.0, 2))
COLUMNS = TokenColumns([7, 3, 9], [-0.5, -1.0, -1.0], [1, 2, 2])


def test_columns_read_like_the_tuple_of_their_tokens() -> None:
    """Length, places from both ends, slices, order, equality and hash."""
    assert len(COLUMNS) == 3
    assert [COLUMNS[place] for place in (0, 1, -1)] == [ROW[0], ROW[1], ROW[2]]
    assert COLUMNS[1:] == ROW[1:]
    assert list(COLUMNS) == list(ROW)
    assert COLUMNS == ROW and ROW == COLUMNS
    assert hash(COLUMNS) == hash(ROW)
    assert str(ROW) in repr(COLUMNS)


def test_other_tokens_are_not_equal() -> None:
    """One rank that differs, one token less, or no tokens at all."""
    assert TokenColumns([7, 3, 9], [-0.5, -1.0, -1.0], [1, 2, 3]) != ROW
    assert COLUMNS[:2] != ROW
    assert COLUMNS != 3
    assert not TokenColumns([], [], [])
