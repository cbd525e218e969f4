"""Which replica a request goes to: its key, and the order of the replicas for a key."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.ray.affinity import (
    CONTEXT_FIELDS,
    MAX_HASHED_BYTES,
    MIN_BOUND,
    bound,
    context_key,
    ranked,
    route,
    session_of,
)

REPLICAS = [f"replica-{number}" for number in range(5)]
KEYS = [f"key {number}" for number in range(2_000)]

values = st.one_of(
    st.text(max_size=20),
    st.lists(st.integers(0, 1000), max_size=5),
    st.lists(st.dictionaries(st.sampled_from(["role", "content"]), st.text(max_size=9))),
)


def encoded(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@given(values, values, st.sampled_from(CONTEXT_FIELDS))
def test_equal_contexts_have_equal_keys(context: object, other: object, field: str) -> None:
    """Whatever else is in the body, before the context or behind it."""
    one = json.dumps({field: context, "candidates": [" a"]}).encode()
    two = json.dumps({"candidates": other, "top_n": 3, field: context}).encode()
    assert context_key(one) == context_key(two) is not None
    if context != other and field not in ("messages", "input"):
        assert context_key(one) != context_key(json.dumps({field: other}).encode())


def test_names_within_texts_are_no_fields() -> None:
    """A candidate that spells a field is a candidate."""
    tricky = ['"context": "x"', '{"context": "y"}', "\\"]
    plain = encoded(candidates=["a"], context="the same")
    assert context_key(encoded(candidates=tricky, context="the same")) == context_key(plain)
    assert context_key(encoded(candidates=tricky)) is None


@pytest.mark.parametrize("field", ["messages", "input"])
def test_a_chat_stays_where_it_began(field: str) -> None:
    """Its first message is its key."""
    first, other = {"role": "user", "content": "a"}, {"role": "user", "content": "b"}
    key = context_key(encoded(**{field: [first]}))
    assert key == context_key(encoded(**{field: [first, other, first]})) is not None
    assert key != context_key(encoded(**{field: [other, first]}))
    assert context_key(encoded(**{field: [1, 2]})) != context_key(encoded(**{field: [1, 3]}))


def test_the_end_of_a_context_counts() -> None:
    """Contexts that begin alike do not all go to one replica."""
    assert context_key(encoded(context="a" * 9_000 + "b")) != context_key(
        encoded(context="a" * 9_000 + "c")
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b'{"context"', b'{"context":', b'{"context": "abc', b'{"context": [[[["',
     b'{"context": ]', b"\xff\xfe", b'{"context": ' + b"[" * 100_000, b'"context": "' + b"\\" * 9],
)  # fmt: skip
def test_what_is_no_json_is_no_matter(body: bytes) -> None:
    """The app refuses it; here any key will do, or none."""
    key = context_key(body)
    assert key is None or len(key) == 32


def test_the_work_is_bounded() -> None:
    """What lies behind the bound is not read."""
    long = b"x" * MAX_HASHED_BYTES
    cut = context_key(b'{"context": "' + long + b'y"}')
    assert cut == context_key(b'{"context": "' + long + b'z"}') is not None
    assert context_key(long + b'{"context": "y"}') is None


@pytest.mark.parametrize(
    ("given_headers", "expected"),
    [
        ([(b"x-session-id", b"abc")], "abc"),
        ([(b"X-Session-Id", b" a b ")], "a b"),
        ([(b"x-session-id", b"a" * 128)], "a" * 128),
        ([(b"x-session-id", b"a" * 129)], None),
        ([(b"x-session-id", b"")], None),
        ([(b"x-session-id", b"\xc3\xa9")], None),
        ([(b"x-session-id", b"a\tb")], None),
        ([(b"x-session-id", b"a"), (b"x-session-id", b"b")], None),
        ([(b"authorization", b"a")], None),
    ],
)
def test_usable_sessions(given_headers: list[tuple[bytes, bytes]], expected: str | None) -> None:
    """Printable ASCII, 128 characters at most, and one of them."""
    assert session_of(given_headers) == expected


def test_keys_spread_evenly() -> None:
    """No replica has much more than its share."""
    owners = Counter(ranked(key, REPLICAS)[0] for key in KEYS)
    mean = len(KEYS) / len(REPLICAS)
    assert all(0.8 * mean < count < 1.2 * mean for count in owners.values())
    assert len(owners) == len(REPLICAS)


def test_few_keys_move() -> None:
    """Only the keys of the replica that goes move, and to different ones."""
    gone, *rest = REPLICAS
    before = {key: ranked(key, REPLICAS) for key in KEYS}
    after = {key: ranked(key, reversed(rest)) for key in KEYS}
    assert all(after[key] == [one for one in before[key] if one != gone] for key in KEYS)
    assert len({after[key][0] for key in KEYS if before[key][0] == gone}) == len(rest)


loads = st.dictionaries(st.sampled_from(REPLICAS), st.integers(0, 200), min_size=1)


@given(loads, st.floats(1, 3), st.integers(1, 20))
def test_the_bound_holds(counts: dict[str, int], factor: float, least: int) -> None:
    """The first one has room for the request; every replica is named once."""
    order = route("key", counts, factor, least)
    assert sorted(order) == sorted(counts)
    assert counts[order[0]] + 1 <= bound(counts.values(), factor, least)


@given(loads)
def test_within_the_bound_keys_stay(counts: dict[str, int]) -> None:
    """A key leaves its own replica only when that is full, and goes to its next one."""
    order = ranked("key", counts)
    most = bound(counts.values())
    with_room = [one for one in order if counts[one] < most]
    assert route("key", counts)[0] == with_room[0]


def test_a_small_queue_is_no_crowd() -> None:
    """Below the least bound nobody is sent away, idle though the others are."""
    first = ranked("key", REPLICAS)[0]
    counts = dict.fromkeys(REPLICAS, 0) | {first: MIN_BOUND - 1}
    assert route("key", counts)[0] == first
    counts[first] = MIN_BOUND
    assert route("key", counts)[0] == ranked("key", REPLICAS)[1]


def test_no_replicas() -> None:
    """Nobody is chosen from nobody."""
    assert route("key", {}) == []
