"""Parts of decisions."""

from __future__ import annotations

from app.calibration.folds import FOLDS, folds, halves


def test_halves_hold_everything_once() -> None:
    """The first is larger by one where it must be, and neither is a run of the order given."""
    for count in (10, 11, 200):
        first, second = halves(range(count))
        assert sorted(first + second) == list(range(count))
        assert len(first) - len(second) == count % 2
        assert max(first[: count // 4]) > count // 4


def test_every_item_is_held_out_once() -> None:
    """And is not among those that are fitted to."""
    items = list(range(23))
    found = list(folds(items))
    assert len(found) == FOLDS
    assert sorted(one for _, part in found for one in part) == items
    for rest, part in found:
        assert sorted(rest + part) == items
        assert 4 <= len(part) <= 5


def test_they_depend_on_the_number_alone() -> None:
    """The same on every machine and in every version: written out."""
    assert halves("abcdefghij") == (list("hbdcj"), list("ifeag"))
