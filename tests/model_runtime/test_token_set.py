"""Sets of token ids, against Python's own sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.token_set import TokenSet

SIZES = st.integers(1, 70)


@st.composite
def ids_of_a_vocabulary(draw: st.DrawFn) -> tuple[int, frozenset[int]]:
    """A vocabulary's size and some of its ids."""
    size = draw(SIZES)
    return size, draw(st.frozensets(st.integers(0, size - 1)))


@given(ids_of_a_vocabulary())
def test_it_holds_just_its_ids(case: tuple[int, frozenset[int]]) -> None:
    """Membership, length and order of iteration are those of the ids it was made of."""
    size, ids = case
    found = TokenSet.of(ids, size)
    assert list(found) == sorted(ids)
    assert len(found) == len(ids) and bool(found) == bool(ids)
    assert [token_id for token_id in range(-9, size + 9) if token_id in found] == sorted(ids)
    assert "0" not in found


@given(ids_of_a_vocabulary(), st.frozensets(st.integers(0, 69)))
def test_two_sets_have_these_in_common(
    case: tuple[int, frozenset[int]], others: frozenset[int]
) -> None:
    """Sets over other vocabularies have nothing to do with each other."""
    size, ids = case
    known = {i for i in others if i < size}
    both = TokenSet.of(ids, size).intersection(TokenSet.of(known, size))
    assert set(both) == ids & known
    with pytest.raises(ValueError, match="sets over"):
        both.intersection(TokenSet.all(size + 1))


@given(ids_of_a_vocabulary(), st.frozensets(st.integers(0, 69)))
def test_ids_are_added_and_taken_away(
    case: tuple[int, frozenset[int]], others: frozenset[int]
) -> None:
    """``union`` and ``without`` give new sets and leave the old one as it is."""
    size, ids = case
    found, known = TokenSet.of(ids, size), {i for i in others if i < size}
    assert set(found.union(known)) == ids | known
    assert set(found.without(others)) == ids - others
    assert set(found) == ids


@given(ids_of_a_vocabulary())
def test_equal_sets_are_equal_however_they_were_made(case: tuple[int, frozenset[int]]) -> None:
    """Bits, ids and steps lead to one value with one hash; another vocabulary's is another."""
    size, ids = case
    one = TokenSet.of(ids, size)
    others = [
        TokenSet.from_bits(one.bits, size),
        TokenSet.all(size).without(set(range(size)) - ids),
        TokenSet.of((), size).union(sorted(ids, reverse=True)),
    ]
    for other in others:
        assert other == one and hash(other) == hash(one)
    assert TokenSet.of(ids, size + 1) != one
    assert one != sorted(ids)


@given(st.binary(max_size=9), SIZES)
def test_bits_of_another_length_are_cut_or_filled_up(bits: bytes, size: int) -> None:
    """Ids behind the vocabulary are dropped, and ids without a bit are not in it."""
    spelled = {i for i in range(8 * len(bits)) if bits[i // 8] >> i % 8 & 1}
    assert set(TokenSet.from_bits(bits, size)) == {i for i in spelled if i < size}


@given(SIZES)
def test_all_ids(size: int) -> None:
    """``all`` holds the whole vocabulary and no id more."""
    assert list(TokenSet.all(size)) == list(range(size))


@pytest.mark.parametrize("token_id", [-1, 8])
def test_an_id_outside_the_vocabulary_is_refused(token_id: int) -> None:
    """No set holds an id that there is no token for."""
    with pytest.raises(ValueError, match=str(token_id)):
        TokenSet.of([token_id], 8)
    with pytest.raises(ValueError, match=str(token_id)):
        TokenSet.of([1], 8).union([token_id])


def test_bits_that_are_no_set_over_the_vocabulary_are_refused() -> None:
    """Too few bytes, or a bit behind the last id, is a mistake of the caller."""
    for bits in (b"", b"\0\0", b"\x80"):
        with pytest.raises(ValueError, match="no set over 7 tokens"):
            TokenSet(bits, 7)


def test_its_text_names_a_few_ids() -> None:
    """What a failed test prints stays short."""
    assert repr(TokenSet.of((3, 1), 9)) == "TokenSet({1, 3}, 2 of 9)"
    assert repr(TokenSet.all(20)) == "TokenSet({0, 1, 2, 3, 4, 5, 6, 7, ...}, 20 of 20)"
