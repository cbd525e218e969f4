"""How many rows the products of attention have on a CPU, so that no row changes another's bits.

The library that multiplies takes rows in small groups, and the rows that are left over go through
another kernel with other bits. What a group is depends on the instruction set and the head's width:

    AVX-512, heads below 192    a product may have any multiple of 8 rows
    AVX-512, wider heads        the flash kernel's tiles of 32 rows must be full
    AVX2, Intel's library       groups of 6, so 2 of 32 rows are left over; products of 24 rows

So there are two layouts, and the first that passes a check on the served heads is the one in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from model_runtime.attention import cpu
from model_runtime.attention.paths import Kernel
from model_runtime.span_sizes import KEY_STEP, ROW_STEP, padded_rows
from model_runtime.threads import using_threads

WIDE_HEAD = 192
"""Columns of a head from which on the flash kernel's last tile must be full."""

SMALL_TILE = 24
"""Divides by the groups of every library that was tried: 2, 3, 4, 6, 8, 12."""

_TALLEST = 832
"""Rows of the check's tallest product: the flash kernel changes its tiles at 192 and at 768."""

_LONGEST = 1056
"""Keys of its longest: past two of the blocks that a product takes them in, and ragged."""

_WINDOWS = ((0, 1), (5, 6), (3, 11), (30, 63), (7, 79), (40, 240))
"""Rows of the crowd that are asked again by themselves."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention heads of a layer.

    Attributes:
        kv_heads: heads of keys and values.
        width: columns of a head.
        softcap: of the scores, where they are capped.
    """

    kv_heads: int
    width: int
    softcap: float | None = None

    @classmethod
    def of(cls, config: Any) -> Heads:
        """The heads that a transformers config describes."""
        heads = config.num_attention_heads
        return cls(
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            width=getattr(config, "head_dim", None) or config.hidden_size // heads,
            softcap=getattr(config, "attn_logit_softcapping", None),
        )


@dataclass(frozen=True, slots=True)
class RowTiles:
    """How rows are put to the kernel.

    Attributes:
        step: products have a multiple of so many rows, and no row changes another's bits.
        apart: they have exactly so many.
    """

    step: int
    apart: bool = False

    def kernel(self) -> Kernel:
        """The kernel that takes rows so."""
        return partial(cpu.attend_in_tiles, self.step) if self.apart else cpu.attend

    def __str__(self) -> str:
        return f"{self.step} rows a product" if self.apart else f"multiples of {self.step} rows"


def layouts(width: int) -> tuple[RowTiles, ...]:
    """Those to try for heads of a width, the fastest first."""
    step = cpu.FLASH_ROWS if width >= WIDE_HEAD else ROW_STEP
    return RowTiles(step), RowTiles(SMALL_TILE, apart=True)


def choose_row_tiles(heads: Heads) -> tuple[RowTiles, bool]:
    """The layout for a model's heads, and whether rows keep their bits in it.

    Where they do in none, it is the first one. Torch's threads of now are tried, and one alone.
    """
    return _chosen(heads, torch.get_num_threads())


@lru_cache
def _chosen(heads: Heads, threads: int) -> tuple[RowTiles, bool]:
    tried = layouts(heads.width)
    for tiles in tried:
        if keeps_bits(tiles, heads, threads):
            return tiles, True
    return tried[0], False


def keeps_bits(tiles: RowTiles, heads: Heads, threads: int) -> bool:
    """Compare rows of a crowd with the same rows by themselves, whichever threads compute them."""
    return all(
        _same_bits(tiles, heads, keys, tallest, threads)
        for keys, tallest in ((KEY_STEP, _TALLEST), (5 * KEY_STEP, 240), (_LONGEST, 240))
    )


def _same_bits(tiles: RowTiles, heads: Heads, keys: int, tallest: int, threads: int) -> bool:
    generator = torch.Generator().manual_seed(heads.width)
    shape = (2, heads.kv_heads, padded_rows(tallest, tiles.step), heads.width)
    query = torch.randn(shape, generator=generator)
    key, value = (
        torch.randn((2, heads.kv_heads, keys, heads.width), generator=generator) for _ in "kv"
    )
    kernel, scaling = tiles.kernel(), heads.width**-0.5

    def attend(spans: int, rows: range) -> tuple[Tensor, Tensor]:
        """Rows of the first span, padded with the last of them."""
        height = padded_rows(len(rows), tiles.step)
        filled = [*rows, *[rows[-1]] * (height - len(rows))]
        span = slice(spans)
        output, log_sum = kernel(
            query[span][:, :, filled], key[span], value[span], None, scaling, heads.softcap
        )
        return output[0, :, : len(rows)], log_sum[0, :, : len(rows)]

    with using_threads(threads):
        output, log_sum = attend(2, range(tallest))
    for count in {1, threads}:
        with using_threads(count):
            for first, stop in _WINDOWS:
                alone, alone_sum = attend(1, range(first, stop))
                if not torch.equal(alone, output[:, first:stop]):
                    return False
                if not torch.equal(alone_sum, log_sum[:, first:stop]):
                    return False
    return True
