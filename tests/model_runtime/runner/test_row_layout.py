"""One number of rows for the products with weights: when it is chosen, and what it computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model_runtime.attention.row_tiles import Heads
from model_runtime.config import EngineConfig
from model_runtime.engine import Engine
from model_runtime.kernels import linear
from model_runtime.kernels.linear import PackedLinear
from model_runtime.kernels.threads import ThreadLimiter
from model_runtime.runner import row_layout
from model_runtime.runner.row_layout import RowLayout, choose_layout, keeps_bits
from tests.conftest import TinyFolder

HEADS = Heads(2, 16)


def packed(dtype: torch.dtype = torch.float32, bias: bool = False) -> PackedLinear:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn((80, 96), generator=generator)
    return PackedLinear(weight, torch.ones(80) if bias else None, dtype, ThreadLimiter())


def changing(is_bad: Callable[[int], bool]) -> Callable[..., Tensor]:
    """oneDNN's product, with other bits for some numbers of rows."""
    product = linear._pointwise

    def pointwise(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = product(rows, weight, bias)
        return y * (1 + 2**-6) if is_bad(rows.shape[0]) else y

    return pointwise


@pytest.mark.parametrize(
    ("is_bad", "tile", "keeps"),
    [
        (lambda rows: False, None, True),
        (lambda rows: rows <= 32, 128, True),
        (lambda rows: rows > 768, 128, True),
    ],
)
def test_the_first_tile_that_keeps_bits_is_chosen(
    is_bad: Callable[[int], bool], tile: int | None, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits that change with the number of rows make every product as tall as the others."""
    monkeypatch.setattr(linear, "_pointwise", changing(is_bad))
    decoder, head = [packed(), packed(bias=True)], [packed()]
    layout = choose_layout(HEADS, decoder, head, most_head_rows=16)
    assert (layout.decoder, layout.batch_invariant) == (tile, keeps)
    assert {layer.tile for layer in decoder} == {tile}


def test_products_that_never_agree_are_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no tile keeps bits, any number of rows is used and nothing is promised."""
    calls = iter(range(1_000_000))
    monkeypatch.setattr(linear, "_pointwise", changing(lambda _rows: bool(next(calls) % 2)))
    layer = packed()
    layout = choose_layout(HEADS, [layer], [packed()], most_head_rows=64)
    assert not layout.batch_invariant and layout.decoder is None and layer.tile is None


@pytest.mark.parametrize(("dtype", "tile"), [(torch.float32, None), (torch.bfloat16, 128)])
def test_amx_is_not_trusted_with_bfloat16(
    dtype: torch.dtype, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that passes for any number of rows proves nothing there; float32 does not use it."""
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bfloat16 products")
    # a product that keeps bits, whatever the CPU at hand does
    monkeypatch.setattr(linear, "_pointwise", lambda rows, *_: rows[:, :80].clone())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    layout = choose_layout(HEADS, [packed(dtype)], [packed()], most_head_rows=64)
    assert layout.decoder == tile and layout.head is None and layout.batch_invariant


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
def test_products_in_tiles_are_exact(rows: int, bias: bool) -> None:
    """Whatever is missing to a whole tile is padded, and the padding is dropped."""
    layer, x = packed(bias=bias), torch.randn(1, rows, 96)
    whole = layer(x)
    layer.tile = 64
    assert layer(x).shape == (1, rows, 80)
    torch.testing.assert_close(layer(x), whole, atol=1e-5, rtol=1e-5)
    assert keeps_bits(layer)


def test_every_product_has_the_rows_of_its_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is taller or lower, so none has other bits."""
    seen: set[int] = set()
    monkeypatch.setattr(linear, "_pointwise", changing(lambda rows: bool(seen.add(rows))))
    layer = packed()
    layer.tile = 64
    for rows in (1, 2, 63, 64, 65, 300):
        layer(torch.randn(rows, 96))
    assert seen == {64}


def test_a_model_without_invariant_products_says_so(
    tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its description says it, and the log does, once; its fingerprint tells layouts apart."""
    config = EngineConfig(
        model=str(tiny_folder("llama")), device="cpu", kernels="torch", kv_cache_bytes=1 << 20
    )
    good = Engine.load(config)
    assert good.info.batch_invariant and not caplog.records
    monkeypatch.setattr(row_layout, "keeps_bits", lambda *_: False)
    bad = Engine.load(config)
    assert not bad.info.batch_invariant
    assert [record.getMessage().count("batch_invariant") for record in caplog.records] == [1]
    monkeypatch.setattr(row_layout, "keeps_bits", lambda layer, _rows: layer.tile == 256)
    assert Engine.load(config).info.fingerprint != good.info.fingerprint


def test_a_layout_reads_as_words() -> None:
    """It is a part of the fingerprint, so its words differ where bits may."""
    words = {str(RowLayout(decoder=tile)) for tile in linear.TILES}
    assert len(words) == len(linear.TILES)
