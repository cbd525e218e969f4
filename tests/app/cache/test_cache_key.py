"""What two queries have to share to be known as one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cache.cache_key import DIGEST_BYTES, RECENT_PREFIXES, cache_keys
from model_runtime import LogprobQuery, TokenSet, TopKSelection

PLAIN = LogprobQuery((5, 6, 7, 8), 2, ())
ALLOWED = TokenSet.of([1, 2], 64)

OTHERWISE: dict[str, list[Any]] = {
    "tokens": [(5, 6, 7, 9), (4, 6, 7, 8), (5, 6, 7), (5, 6, 7, 8, 0), (5 | 6 << 8, 7, 8)],
    "score_from": [1, 3, 4],
    "targets": [None, (1,), (2,), (1, 2), (12,)],
    "top_k": [1, 2],
    "summary": [True],
    "cache_salt": ["a", "b", "a/b"],
    "choice": [
        TopKSelection(1),
        TopKSelection(2),
        TopKSelection(1, floor=-1.0),
        TopKSelection(1, allowed=ALLOWED),
        TopKSelection(1, allowed=TokenSet.of([1, 3], 64)),
        TopKSelection(1, allowed=TokenSet.of([1, 2], 63)),
    ],
    "keep": [0, 3],
    "logits": [True],
    "temperatures": [(1.0,), (1.0000000000000002,), (1.0, 2.0)],
    "token_sets": [(ALLOWED,), (ALLOWED, ALLOWED), (TokenSet.of([1, 3], 64),)],
}
"""Other values of each field of ``PLAIN``."""


def digest(query: LogprobQuery, fingerprint: str = "f", salt: str = "") -> bytes:
    """Of one query by itself."""
    (only,) = cache_keys(fingerprint, salt, [query])
    return only


def test_every_field_of_a_query_tells() -> None:
    """No two queries that differ in anything are known as one, whatever the field."""
    assert OTHERWISE.keys() == {field.name for field in fields(LogprobQuery)}
    others = [
        replace(PLAIN, **{name: value}) for name, values in OTHERWISE.items() for value in values
    ]
    keys = {digest(query) for query in (PLAIN, *others)}
    assert len(keys) == 1 + len(others)
    assert {len(one) for one in keys} == {DIGEST_BYTES}


def test_equal_queries_are_known_as_one() -> None:
    """It is the content that counts, not the object."""
    query = replace(PLAIN, choice=TopKSelection(1, allowed=ALLOWED))
    copy = LogprobQuery(
        (*query.tokens,), 2, (), choice=TopKSelection(1, allowed=TokenSet.of([2, 1], 64))
    )
    assert digest(query) == digest(copy)


def test_models_and_tenants_are_kept_apart() -> None:
    """Fingerprint and salts are told apart, and so is where one ends and the next begins."""
    ways = [
        digest(PLAIN),
        digest(PLAIN, fingerprint="g"),
        digest(PLAIN, salt="a"),
        digest(PLAIN, fingerprint="fa"),
        digest(PLAIN, fingerprint="f', 'a"),
        digest(replace(PLAIN, cache_salt="a")),
        digest(replace(PLAIN, cache_salt="b"), salt="a"),
        digest(replace(PLAIN, cache_salt="ab")),
        digest(PLAIN, salt="ab"),
        digest(PLAIN, salt="\ud800"),
    ]
    assert len(set(ways)) == len(ways)


paths = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)


@st.composite
def queries(draw: st.DrawFn) -> LogprobQuery:
    """Short paths over few ids, so that prefixes meet."""
    tokens = draw(paths)
    return LogprobQuery(
        tokens,
        draw(st.integers(1, len(tokens))),
        draw(st.none() | st.just(()) | st.tuples(st.integers(0, 3))),
        cache_salt=draw(st.sampled_from(("", "a"))),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(queries(), max_size=2 * RECENT_PREFIXES))
def test_neighbours_change_nothing(several: list[LogprobQuery]) -> None:
    """A query has the digest that it has alone, and only equal queries have the same."""
    together = cache_keys("f", "", several)
    assert together == [digest(query) for query in several]
    assert len(set(together)) == len(set(several))


def test_more_prefixes_than_are_remembered_do_no_harm() -> None:
    """Paths whose prefixes come round again and again keep their digests."""
    several = [LogprobQuery((place, 1, 2), 2) for place in range(RECENT_PREFIXES + 3)] * 2
    together = cache_keys("f", "", several)
    assert len(set(together)) == RECENT_PREFIXES + 3
    assert together[: len(together) // 2] == together[len(together) // 2 :]


@pytest.mark.parametrize("strange", [2**31, -(2**40), 2**70])
@pytest.mark.parametrize("place", [0, 1])
def test_an_id_that_no_model_has_is_known_as_nothing(strange: int, place: int) -> None:
    """Such a query shares its answer, which is an error, with nobody."""
    tokens = [1, 2]
    tokens[place] = strange
    query = LogprobQuery(tuple(tokens), 1)
    assert digest(query) != digest(query)


def test_what_cannot_be_told_apart_is_refused() -> None:
    """A field of a kind that has no spelling is an error, not a digest that others may have."""
    with pytest.raises(TypeError, match="object"):
        digest(replace(PLAIN, keep=object()))  # type: ignore[arg-type]
