"""How many rows the products of attention have on a CPU, so that no row changes another's bits.

The library that multiplies takes rows in small groups, and the rows that are left over go through
another kernel with other bits. What a group is depends on the instruction set and the head's width:

    AVX-512, heads below 192    a product may have any multiple of 8 rows
    AVX-512, wider heads        the flash kernel's tiles of 32 rows must be full
    AVX2, Intel's library       groups of 6, so 2 of 32 rows are left over; products of 24 rows,
                                on a number of threads that cuts them into groups

So there are some layouts, and the first that passes a check on the served heads is the one in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from model_runtime.attention import cpu
from model_runtime.attention.path_attention import Kernel
from model_runtime.attention.span_groups import UNSEEN
from model_runtime.batching.block_sizes import KEY_STEP, ROW_STEP, padded_rows
from model_runtime.kernels.threads import using_threads

WIDE_HEAD = 192
"""Columns of a head from which on the flash kernel's last tile must be full."""

SMALL_TILE = 24
"""Divides by the groups of every library that was tried: 2, 3, 4, 6, 8, 12."""

_SHAPES = ((KEY_STEP, 832), (5 * KEY_STEP, 1504), (1056, 240))
"""Keys and rows of the check's crowds: the flash kernel changes its tiles at 192 and 768 rows, and
takes keys by 512."""

_SPANS = 3

_WINDOWS = ((0, 1), (5, 6), (3, 11), (30, 63), (7, 79), (40, 240))
"""Rows of the crowd's first span that are asked again by themselves."""

_FEWER_THREADS = (4, 2, 1)
"""To try where the library cuts a product among all of them."""


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
        threads: that compute them at most; None for as many as there are.
    """

    step: int
    apart: bool = False
    threads: int | None = None

    def kernel(self) -> Kernel:
        """The kernel for rows in this layout."""
        kernel: Kernel = partial(cpu.attend_in_tiles, self.step) if self.apart else cpu.attend
        return kernel if self.threads is None else partial(_on_threads, self.threads, kernel)

    def __str__(self) -> str:
        rows = f"{self.step} rows a product" if self.apart else f"multiples of {self.step} rows"
        return rows if self.threads is None else f"{rows} on {self.threads} threads"


def _on_threads(most: int, kernel: Kernel, *arguments: Any) -> tuple[Tensor, Tensor]:
    with using_threads(min(most, torch.get_num_threads())):
        return kernel(*arguments)


def layouts(width: int, threads: int) -> tuple[RowTiles, ...]:
    """Those to try for heads of a width, the fastest first."""
    step = cpu.FLASH_ROWS if width >= WIDE_HEAD else ROW_STEP
    fewer = (count for count in _FEWER_THREADS if count < threads)
    return (
        RowTiles(step),
        RowTiles(SMALL_TILE, apart=True),
        *(RowTiles(SMALL_TILE, apart=True, threads=count) for count in fewer),
    )


def choose_row_tiles(heads: Heads) -> tuple[RowTiles, bool]:
    """The layout for a model's heads, and whether rows keep their bits in it.

    Where they do in none, it is the first one. Torch's threads of now are tried, and one alone.
    """
    return _chosen(heads, torch.get_num_threads())


@lru_cache
def _chosen(heads: Heads, threads: int) -> tuple[RowTiles, bool]:
    tried = layouts(heads.width, threads)
    for tiles in tried:
        if keeps_bits(tiles, heads, threads):
            return tiles, True
    return tried[0], False


def keeps_bits(tiles: RowTiles, heads: Heads, threads: int) -> bool:
    """Compare rows of a crowd with the same rows by themselves, whichever threads compute them."""
    return all(_same_bits(tiles, heads, keys, rows, threads) for keys, rows in _SHAPES)


def _same_bits(tiles: RowTiles, heads: Heads, keys: int, rows: int, threads: int) -> bool:
    """Tensors lie as those of path attention do, and rows see what those of a suffix span see."""
    generator = torch.Generator().manual_seed(heads.width)

    def draw(length: int) -> Tensor:
        shape = (_SPANS, length, heads.kv_heads, heads.width)
        return torch.randn(shape, generator=generator).transpose(1, 2)

    query, key, value = draw(rows), draw(keys), draw(keys)
    unseen = torch.arange(keys) > torch.arange(rows).view(-1, 1) % keys
    mask = torch.zeros(unseen.shape).masked_fill_(unseen, UNSEEN).view(1, 1, rows, keys)
    kernel, scaling = tiles.kernel(), heads.width**-0.5

    def attend(spans: int, part: range, *, masked: bool) -> tuple[Tensor, Tensor]:
        """Rows of the first span, padded with the last of them."""
        filled = [*part, *[part[-1]] * (padded_rows(len(part), tiles.step) - len(part))]
        seen = mask[:, :, filled].expand(spans, -1, -1, -1).contiguous() if masked else None
        some = query[:spans].transpose(1, 2)[:, filled].transpose(1, 2)
        output, log_sum = kernel(some, key[:spans], value[:spans], seen, scaling, heads.softcap)
        return output[0, :, : len(part)], log_sum[0, :, : len(part)]

    for masked in (False, True) if keys < rows else (False,):
        with using_threads(threads):
            crowd = attend(_SPANS, range(rows), masked=masked)
        for count in {1, threads}:
            with using_threads(count):
                for first, stop in _WINDOWS:
                    alone = attend(1, range(first, min(stop, rows)), masked=masked)
                    if not all(
                        torch.equal(one, many[:, first:stop])
                        for one, many in zip(alone, crowd, strict=True)
                    ):
                        return False
    return True
