"""Large answers in pieces: the bytes of pydantic's own serializer."""

from __future__ import annotations

import math

import pytest
from pydantic import BaseModel

from app.http.json_response import PIECE, dump_json_chunked, is_large
from app.schemas.response import TokenDetail


class Inner(BaseModel):
    """Some kinds of fields."""

    text: str
    numbers: list[float]
    pair: tuple[float, float] | None
    tokens: list[TokenDetail] | None = None


class Outer(BaseModel):
    """Objects in objects in lists."""

    name: str
    first: Inner
    rest: list[Inner]
    empty: list[int] = []
    missing: Inner | None = None


def token(place: int) -> TokenDetail:
    return TokenDetail(
        id=place,
        text="\u2603",
        bytes=[226],
        start=None,
        end=1,
        logprob=-0.1,
        rank=1,
        top_logprobs=[],
    )


def inner(count: int, tokens: int = 0) -> Inner:
    numbers = [0.1 * place for place in range(count)] + [1e300, -0.0, math.inf]
    return Inner(
        text='"\n\u2028', numbers=numbers, pair=(0.1, 2.0), tokens=[token(i) for i in range(tokens)]
    )


@pytest.mark.parametrize("count", [0, 1, PIECE - 4, PIECE, PIECE + 1, 3 * PIECE])
@pytest.mark.parametrize("many", [0, 2, PIECE + 5])
def test_the_bytes_are_pydantics_own(count: int, many: int) -> None:
    """However long its lists are and wherever they stand, the answer reads the same."""
    rest = [inner(count if place == 1 else 2, tokens=place % 3) for place in range(many)]
    answer = Outer(name="n", first=inner(count, tokens=count), rest=rest)
    assert dump_json_chunked(answer) == answer.model_dump_json().encode()


def test_entries_at_every_depth_make_an_answer_large() -> None:
    """Many short lists are as long to write as one long list."""
    assert not is_large(Outer(name="n", first=inner(10), rest=[inner(10)] * 10))
    assert is_large(Outer(name="n", first=inner(10), rest=[inner(10)] * 60))
    assert is_large(Outer(name="n", first=inner(0, tokens=PIECE), rest=[]))
