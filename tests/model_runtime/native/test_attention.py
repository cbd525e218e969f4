"""Attention over slots: against float64, in every instruction set, in any company."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from model_runtime.native.kernels import attend
from model_runtime.native.library import Operation, run
from tests.model_runtime.native.everywhere import drawn, everywhere, same_bits

BLOCK = 64


@dataclass
class Paths:
    """Rows at some positions, each with a path of its own behind a shared far part."""

    positions: list[int]
    kv_heads: int = 2
    group: int = 3
    dim: int = 32

    def __post_init__(self) -> None:
        longest = max(self.positions) + 1
        rows = len(self.positions)
        count = longest + rows * 3 * BLOCK + 1
        places = torch.randperm(count, generator=torch.Generator().manual_seed(9))
        self.keys = drawn(1, count, self.kv_heads, self.dim) * 2
        self.values = drawn(2, count, self.kv_heads, self.dim)
        self.query = drawn(3, rows, self.kv_heads * self.group * self.dim)
        spans, slots, self.paths = [], places[:longest].tolist(), []
        for row, position in enumerate(self.positions):
            cut = max(0, position // BLOCK - 1) * BLOCK
            own = longest + row * 3 * BLOCK
            near = places[own : own + position - cut + 1].tolist()
            spans.append([len(slots), len(near), 0, cut])
            slots += near
            self.paths.append(torch.tensor(slots[:cut] + near))
        self.slots, self.spans = torch.tensor(slots), torch.tensor(spans)

    def operation(
        self, rows: list[int], y: Tensor, window: int | None, softcap: float | None
    ) -> Operation:
        return attend(
            self.query[rows], self.keys, self.values, self.slots, self.spans[rows].contiguous(), y,
            scaling=self.dim**-0.5, window=window, softcap=softcap,
        )  # fmt: skip

    def attended(self, rows: list[int], window: int | None, softcap: float | None) -> Tensor:
        y = torch.empty(len(rows), self.query.shape[1])
        run([self.operation(rows, y, window, softcap)])
        return y

    def exact(self, row: int, window: int | None, softcap: float | None) -> Tensor:
        seen = self.paths[row] if window is None else self.paths[row][-window:]
        query = self.query[row].double().view(self.kv_heads, self.group, self.dim)
        scores = torch.einsum("hgd,nhd->hgn", query, self.keys[seen].double()) * self.dim**-0.5
        if softcap is not None:
            scores = softcap * (scores / softcap).tanh()
        weights = scores.softmax(-1)
        return torch.einsum("hgn,nhd->hgd", weights, self.values[seen].double()).flatten()


POSITIONS = [0, 1, 15, 63, 64, 127, 128, 200, 300, 191]
KINDS = [(None, None), (70, None), (1, None), (64, None), (None, 5.0), (150, 30.0)]


@pytest.mark.parametrize(("window", "softcap"), KINDS)
@pytest.mark.parametrize("dim", [16, 64, 112, 256])
def test_attention_is_that_of_the_formula(
    window: int | None, softcap: float | None, dim: int
) -> None:
    """Within 2e-6, wherever blocks and windows end."""
    paths = Paths(POSITIONS, dim=dim)
    every = list(range(len(POSITIONS)))

    def build() -> tuple[list[Operation], list[Tensor]]:
        y = torch.full((len(every), paths.query.shape[1]), torch.nan)
        return [paths.operation(every, y, window, softcap)], [y]

    (y,) = everywhere(build)
    exact = torch.stack([paths.exact(row, window, softcap) for row in every])
    assert (y - exact).abs().max() < 2e-6


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("window", [None, 70, 1])
def test_a_row_has_the_same_bits_in_any_company(window: int | None) -> None:
    """Alone, reversed among others, and beside a row of NaNs."""
    paths = Paths(POSITIONS)
    every = list(range(len(POSITIONS)))
    together = paths.attended(every, window, None)
    for row in every:
        assert same_bits(paths.attended([row], window, None)[0], together[row])
    assert same_bits(paths.attended(every[::-1], window, None).flip(0), together)
    paths.query[3] = torch.nan
    among = paths.attended(every, window, None)
    others = [row for row in every if row != 3]
    assert same_bits(among[others], together[others])


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("window", [None, 100, 7])
@pytest.mark.parametrize("group", [1, 3, 16])
def test_rows_that_share_keys_have_the_bits_of_lone_ones(window: int | None, group: int) -> None:
    """All rows of one path, and of two paths that part at a position, in one call."""
    paths = Paths([*range(150), *range(100, 170)], group=group)
    trunk = paths.paths[149][:130]
    slots, spans = [], []
    for row, (position, own) in enumerate(zip(paths.positions, paths.paths, strict=True)):
        path = torch.cat([trunk, own[130:]]) if position >= 130 else trunk[: position + 1]
        if 130 <= position < 150 and row < 150:
            path = torch.cat([trunk, paths.paths[149][130 : position + 1]])
        cut = max(0, position // BLOCK - 1) * BLOCK
        spans.append([sum(map(len, slots)), len(path) - cut, 0, cut])
        slots.append(path[cut:])
    shift = BLOCK
    paths.slots = torch.cat([trunk[:shift], *slots])
    paths.spans = torch.tensor(spans) + torch.tensor([shift, 0, 0, 0])
    together = paths.attended(list(range(len(spans))), window, None)
    for row in range(len(spans)):
        assert same_bits(paths.attended([row], window, None)[0], together[row])


def test_bits_do_not_depend_on_where_the_far_part_ends() -> None:
    """It ends with a block of 64 keys: none, some or all of those before the row."""
    paths = Paths([200])
    results = []
    for cut in (0, 64, 128, 192):
        paths.slots = paths.paths[0]
        paths.spans = torch.tensor([[cut, 201 - cut, 0, cut]])
        results.append(paths.attended([0], None, None))
    assert all(same_bits(result, results[0]) for result in results)


def test_bits_do_not_depend_on_where_keys_lie() -> None:
    """The same path in other slots."""
    paths = Paths(POSITIONS)
    before = paths.attended([8], None, None)
    order = torch.randperm(len(paths.keys))
    moved = torch.empty_like(order)
    moved[order] = torch.arange(len(order))
    paths.keys, paths.values = paths.keys[order], paths.values[order]
    paths.slots = moved[paths.slots]
    assert same_bits(paths.attended([8], None, None), before)


def test_bad_shapes_are_named() -> None:
    """Heads that the kernel cannot take, slots and spans that lie outside."""
    store = torch.zeros(4, 1, 16)
    query, slots = drawn(1, 1, 32), torch.tensor([0, 1, 2])
    spans, y = torch.tensor([[1, 2, 0, 1]]), torch.empty(1, 32)
    odd, many = torch.zeros(4, 1, 24), torch.zeros(1, 17 * 16)
    for message, q, kv, where, what, window in (
        ("multiple of 16", drawn(1, 1, 48), odd, slots, spans, None),
        ("query has", drawn(1, 1, 40), store, slots, spans, None),
        ("query has", many, store, slots, spans, None),
        ("slots must lie", query, store, slots + 2, spans, None),
        ("within 3 slots", query, store, slots, spans + 1, None),
        ("near ones hold a key", query, store, slots, torch.tensor([[1, 0, 0, 1]]), None),
        ("spans must be", query, store, slots, spans.repeat(2, 1), None),
        ("must be positive", query, store, slots, spans, 0),
    ):
        with pytest.raises(ValueError, match=message):
            attend(q, kv, kv, where, what, y, scaling=1.0, window=window)
    with pytest.raises(ValueError, match="y must be"):
        attend(query, store, store, slots, spans, y[:, :31], scaling=1.0)
