"""How many rows a model's products have on a CPU, so that no row changes another's bits.

oneDNN's products with a weight keep a row's bits for any number of rows from 2 on, in float32 on
every CPU that was tried and in bfloat16 without AMX. With AMX they do not: 1 to 32 rows, up to 512
or 768 and more have bits of their own, by shape and number of threads. Products of one number of
rows agree with each other wherever they are. For those of attention see ``attention.row_tiles``.

The layout is chosen at the start, by comparing bits on the served shapes and never by a clock. It
follows from the machine, the number of threads and the model, and is a part of the fingerprint.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from model_runtime.attention.row_tiles import Heads, RowTiles, choose_row_tiles
from model_runtime.batching.block_sizes import ROW_STEP
from model_runtime.kernels.allocator import give_back_freed_memory
from model_runtime.kernels.linear import TILES, PackedLinear
from model_runtime.kernels.threads import using_threads
from model_runtime.memory.estimate import ModelShape

CROWD = 1040
"""Rows that are compared with fewer of themselves: past the largest class that was seen."""

_FEW = ((0, 1), (5, 7), (3, 11))
_WINDOWS = (*_FEW, (1, 34), (0, 64), (7, 207), (2, 514), (0, 768))
"""Rows of the crowd that are asked again by themselves. On one of two threads a forward computes no
more than ``FEW_ROWS`` of them."""


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How rows are put to the products.

    Attributes:
        attention: to those of attention.
        decoder, head: rows of a product with one of the decoder's weights, and with the head's;
            None for any number.
        batch_invariant: rows were found to keep their bits in it.
    """

    attention: RowTiles = RowTiles(ROW_STEP)  # noqa: RUF009 (it is frozen)
    decoder: int | None = None
    head: int | None = None
    batch_invariant: bool = False

    def shape_of(self, model: ModelShape) -> ModelShape:
        """A model's shape, with the rows that its products take here."""
        return replace(
            model,
            row_step=self.attention.step,
            apart=self.attention.apart,
            decoder_step=self.decoder or 1,
            head_step=self.head or 2,
        )

    def __str__(self) -> str:
        return f"attention {self.attention}, decoder {self.decoder}, head {self.head}"


def choose_layout(
    heads: Heads,
    decoder: Collection[PackedLinear],
    head: Collection[PackedLinear],
    most_head_rows: int,
) -> RowLayout:
    """The layout for a model on this CPU with torch's threads of now; sets the layers' ``tile``.

    Args:
        heads: of its attention.
        decoder: its layers.
        head: the layers of its head, one.
        most_head_rows: that the head ever gets at once.
    """
    attention, found = choose_row_tiles(heads)
    decoder_rows, found_decoder = _choose_tile(decoder)
    head_rows, found_head = _choose_tile(head, most_head_rows)
    give_back_freed_memory()
    return RowLayout(attention, decoder_rows, head_rows, found and found_decoder and found_head)


def native_layout(rounded: Collection[PackedLinear]) -> RowLayout:
    """The layout of native kernels, whose rows keep their bits in any.

    Args:
        rounded: layers in bfloat16, whose products are not native. Sets their ``tile``.
    """
    decoder_rows, found = _choose_tile(rounded) if rounded else (None, True)
    give_back_freed_memory()
    return RowLayout(decoder=decoder_rows, batch_invariant=found)


def _choose_tile(
    layers: Collection[PackedLinear], most_rows: int = CROWD
) -> tuple[int | None, bool]:
    """Set ``tile`` of layers of one precision; that tile, and whether rows keep their bits."""
    kinds = {(x.out_features, x.in_features, x.bias is None): x for x in layers}
    for tile in TILES[1:] if _are_known_to_change(layers) else TILES:
        _set_tile(layers, tile)
        if all(keeps_bits(layer, most_rows) for layer in kinds.values()):
            return tile, True
    _set_tile(layers, None)
    return None, False


def keeps_bits(layer: PackedLinear, most_rows: int = CROWD) -> bool:
    """Compare rows of a crowd with the same rows beside fewer, on all threads and on one."""
    generator = torch.Generator().manual_seed(layer.in_features)
    rows = torch.randn((min(CROWD, most_rows), layer.in_features), generator=generator)
    crowd = layer(rows)

    def agree(windows: Sequence[tuple[int, int]]) -> bool:
        inside = (slice(first, stop) for first, stop in windows if first < len(rows))
        return all(torch.equal(layer(rows[window]), crowd[window]) for window in inside)

    if not agree(_WINDOWS):
        return False
    with using_threads(1):
        return agree(_FEW)


def _set_tile(layers: Collection[PackedLinear], tile: int | None) -> None:
    for layer in layers:
        layer.tile = tile


def _are_known_to_change(layers: Collection[PackedLinear]) -> bool:
    """Whether a check that happens to pass would prove nothing."""
    has_amx = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return has_amx and any(layer.dtype is torch.bfloat16 for layer in layers)
