"""JSON that a model reads as text: what is too much of it, and that no more of it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from app.schemas.json_content import (
    MAX_JSON_BYTES,
    MAX_JSON_DEPTH,
    MAX_JSON_VALUES,
    check_json,
)


class Watched(list[Any]):
    """A list that knows how many of its values were looked at."""

    looked = 0

    def __iter__(self) -> Iterator[Any]:
        for value in super().__iter__():
            self.looked += 1
            yield value


def nested(data: Any, levels: int) -> Any:
    """The data in so many lists."""
    for _ in range(levels):
        data = [data]
    return data


def is_refused(data: Any) -> bool:
    """Whether there is too much of it."""
    try:
        check_json(data)
    except PydanticCustomError as error:
        assert error.type == "json_size"
        return True
    return False


@pytest.mark.parametrize("inner", ["a", [], {}])
def test_the_bounds_are_exact(inner: Any) -> None:
    """Of values, the outermost counted, of their depth, and of bytes of text."""
    assert not is_refused([inner] * (MAX_JSON_VALUES - 1))
    assert is_refused([inner] * MAX_JSON_VALUES)
    assert is_refused({"a": [inner] * (MAX_JSON_VALUES // 2), "b": [inner] * MAX_JSON_VALUES})
    assert not is_refused(nested(inner, MAX_JSON_DEPTH - 1))
    assert is_refused(nested(inner, MAX_JSON_DEPTH))
    assert is_refused({"a": "é" * (MAX_JSON_BYTES // 2)})
    assert not is_refused({"a": "é" * (MAX_JSON_BYTES // 2 - 5)})


@pytest.mark.parametrize("depth", [0, 1, 29])
def test_nothing_is_looked_at_beyond_the_bound(depth: int) -> None:
    """However deep what is too long stands."""
    long = Watched([1] * (10 * MAX_JSON_VALUES))
    assert is_refused(nested(long, depth))
    assert long.looked == 0
    parts = [Watched([1] * (MAX_JSON_VALUES // 4)) for _ in range(100)]
    assert is_refused(nested(parts, depth))
    assert sum(part.looked for part in parts) <= MAX_JSON_VALUES
