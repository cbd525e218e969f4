"""The attention kernel of CPUs: torch's flash kernel, and plain products where scores are capped.

The flash kernel is called by its own name, since it alone returns the log-sum-exp. Which rows of
one call leave each other's bits alone is ``attention.row_tiles``' business.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model_runtime.attention import plain as products

FLASH_ROWS = 32
"""Rows that the flash kernel takes at once, at the least."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its scores; shapes as in ``path_attention.Kernel``."""
    if _is_split(query, softcap):
        q, k, v = (tensor.expand(2, -1, -1, -1) for tensor in (query, key, value))
        output, log_sum = _attend(q, k, v, mask, scaling, softcap)
        return output[:1], log_sum[:1]
    return _attend(query, key, value, mask, scaling, softcap)


def attend_in_tiles(
    tile: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """The same where each product has ``tile`` rows, whose number divides M."""
    tiles = query.shape[2] // tile
    if tiles == 1:
        return attend(query, key, value, mask, scaling, softcap)
    if softcap is None:
        return _flash_in_tiles(tiles, query, key, value, mask, scaling)
    parts = []
    for first in range(0, query.shape[2], tile):
        rows = slice(first, first + tile)
        its_mask = None if mask is None else mask[:, :, rows]
        parts.append(attend(query[:, :, rows], key, value, its_mask, scaling, softcap))
    return torch.cat([part for part, _ in parts], 2), torch.cat([part for _, part in parts], 2)


def _flash_in_tiles(
    tiles: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> tuple[Tensor, Tensor]:
    """Tiles take the place of query heads that share a key head, so no key is copied."""
    count, kv_heads, height, width = query.shape
    query = query.reshape(count, kv_heads * tiles, height // tiles, width)
    if mask is not None:
        every = mask.view(count, 1, tiles, height // tiles, -1).expand(-1, kv_heads, -1, -1, -1)
        mask = every.reshape(count, kv_heads * tiles, height // tiles, -1)
    output, log_sum = _attend(query, key, value, mask, scaling, None)
    return output.reshape(count, kv_heads, height, width), log_sum.reshape(count, kv_heads, height)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    if softcap is not None:
        return products.attend(query, key, value, mask, scaling, softcap)
    output, log_sum = _flash(query, key, value, 0.0, False, attn_mask=mask, scale=scaling)
    return output, log_sum


def _is_split(query: Tensor, softcap: float | None) -> bool:
    """Whether the threads would share one product, and its sums, instead of taking one each."""
    count, heads, height, _ = query.shape
    lone = count * heads == 1 and (softcap is not None or height <= FLASH_ROWS)
    return lone and torch.get_num_threads() > 1
