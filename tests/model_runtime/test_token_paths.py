"""The order of many token paths is that of sorting them."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest

from model_runtime import token_paths as module
from model_runtime.normalization import are_apart
from model_runtime.token_paths import path_order


@pytest.mark.parametrize("seed", range(40))
def test_the_order_is_that_of_sorting(seed: int) -> None:
    """Among paths that share beginnings, begin one another, are equal or empty."""
    source = random.Random(seed)
    longest, kinds = source.choice((2, 6, 30)), source.choice((1, 2, 50))
    paths = [
        tuple(source.randrange(kinds) for _ in range(source.randint(0, longest)))
        for _ in range(source.randint(0, 400))
    ]
    with patch.multiple(
        module, AT_ONCE=source.choice((1, 7, 2048)), DEEPEST=source.choice((1, 16))
    ):
        assert path_order(paths) == sorted(range(len(paths)), key=paths.__getitem__)


@pytest.mark.parametrize(
    ("paths", "apart"),
    [
        ([], True),
        ([(1,)], True),
        ([(1, 2), (1, 3), (2,)], True),
        ([(1, 2), (1,)], False),
        ([(1, 2), (3,), (1, 2)], False),
        ([(1, 2, 3), (1, 20), (1, 2)], False),
    ],
)
def test_paths_are_apart_where_none_begins_another(
    paths: list[tuple[int, ...]], apart: bool
) -> None:
    """Equal paths are not apart either."""
    assert are_apart(paths) is apart
