"""The rows of attention's products: which layout is chosen, and that it is attention still."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from model_runtime.attention import cpu, row_tiles
from model_runtime.attention.row_tiles import Heads, RowTiles, choose_row_tiles, layouts
from model_runtime.attention.span_groups import UNSEEN

Attended = tuple[Tensor, Tensor]

FREE, WIDE, APART = RowTiles(8), RowTiles(32), RowTiles(24, apart=True)
ON_2, ON_1 = RowTiles(24, apart=True, threads=2), RowTiles(24, apart=True, threads=1)


@pytest.fixture(autouse=True)
def _forget_choices() -> Iterator[None]:
    """Nothing chosen with one kernel is used with another."""
    row_tiles._chosen.cache_clear()
    yield
    row_tiles._chosen.cache_clear()


def test_layouts_follow_from_the_width() -> None:
    """Wide heads fill the flash kernel's tiles; products of 24 rows are the last resort of all."""
    assert [layouts(width, 1) for width in (64, 176)] == [(FREE, APART)] * 2
    assert [layouts(width, 2) for width in (192, 256, 512)] == [(WIDE, APART, ON_1)] * 3
    assert layouts(64, 3) == (FREE, APART, ON_2, ON_1)


@pytest.mark.parametrize("heads", [Heads(2, 64), Heads(1, 256), Heads(1, 128, softcap=30.0)])
def test_rows_keep_their_bits_on_this_machine(heads: Heads) -> None:
    """A layout is found for narrow, wide and capped heads."""
    _, keeps = choose_row_tiles(heads)
    assert keeps


def leaking(is_bad: Callable[[int, int], bool]) -> Callable[..., Attended]:
    """In the flash kernel's place, rows as they come in, but for some places: (row, rows) -> bool.

    The kernel itself may have such places on the CPU at hand.
    """

    def kernel(query: Tensor, *_: object, **__: object) -> Attended:
        height = query.shape[2]
        bad = torch.tensor([is_bad(row, height) for row in range(height)])
        return query + bad.view(-1, 1), query[..., 0]

    return kernel


def left_over(row: int, height: int) -> bool:
    """Rows behind the last whole group of six, in tiles of 32."""
    tile = min(32, height - row // 32 * 32)
    return row % 32 >= tile // 6 * 6


@pytest.mark.parametrize(
    ("is_bad", "width", "chosen"),
    [
        (left_over, 64, (APART, True)),
        (lambda row, height: height % 32 == 8 and row >= height - 8, 256, (WIDE, True)),
        (lambda row, height: height % 32 == 8 and row >= height - 8, 64, (APART, True)),
        (lambda row, height: row % 2 == 1, 64, (FREE, False)),
        (lambda row, height: row % 2 == 1, 256, (WIDE, False)),
    ],
)
def test_the_first_layout_that_keeps_bits_is_chosen(
    is_bad: Callable[[int, int], bool],
    width: int,
    chosen: tuple[RowTiles, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bits that change with the place in a product rule a layout out; where all do, it is said."""
    monkeypatch.setattr(cpu, "_flash", leaking(is_bad))
    assert choose_row_tiles(Heads(2, width)) == chosen


def test_fewer_threads_share_a_product_where_all_of_them_cut_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three threads cut 24 rows into eights, of which sixes leave two over; two into halves."""

    def cut(row: int, height: int) -> bool:
        part = height // torch.get_num_threads()
        return row % part >= part // 6 * 6

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        monkeypatch.setattr(cpu, "_flash", leaking(cut))
        assert choose_row_tiles(Heads(2, 64)) == (ON_2, True)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("height", [24, 72])
def test_products_apart_are_the_same_attention(
    height: int, masked: bool, softcap: float | None
) -> None:
    """Each tile meets its own rows of the mask and its own key head."""
    generator = torch.Generator().manual_seed(height)
    query = torch.randn((2, 3, height, 16), generator=generator)
    key, value = (torch.randn((2, 3, 96, 16), generator=generator) for _ in "kv")
    mask = None
    if masked:
        mask = torch.zeros(2, 1, height, 96)
        mask[torch.rand(mask.shape, generator=generator) < 0.5] = UNSEEN
    whole = cpu.attend(query, key, value, mask, 0.25, softcap)
    apart = APART.kernel()(query, key, value, mask, 0.25, softcap)
    for got, want in zip(apart, whole, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
