"""Path attention: row r attends to its own token path, block by block of absolute position.

A work item is a tile of rows against one key block. Its partial result, per row and head,
is (maximum, sum of exponentials, weighted values). Partials merge in the order of blocks::

    key blocks of a path    [0, 128)   [128, 256)   [256, 384)
    row at position 300      full        full        256..300, the rest masked
                            partial 0  + partial 1 + partial 2

Every shape that a row's arithmetic sees is set by the row's own position: how many blocks,
each of exactly BLOCK_SIZE keys, masked ones adding an exact zero. Neighbours decide only how
many other rows the same product has, on which a row's bits do not depend from 8 rows on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.batch import Batch, KeyBlock
from model_runtime.kv_cache import KVStorage
from model_runtime.planner import BLOCK_SIZE

TILE_ROWS = (8, 16, 32, 64)
"""Rows that a tile may have; fewer are padded."""

_NO_KEY_SEEN = -1e30


@dataclass(frozen=True, slots=True)
class _Tiles:
    """n tiles of T rows against blocks that start at one position.

    Attributes:
        start: absolute position of the blocks' first key.
        rows: [n * T] batch rows, the last one of a tile repeated as padding.
        slots: [n * BLOCK_SIZE] where the keys lie, padded with slot 0.
        source, target: [m] the tile rows that are real, and their batch rows.
        count, height: n and T.
        hidden: some row does not see some key of its block, in full attention.
    """

    start: int
    rows: Tensor
    slots: Tensor
    source: Tensor
    target: Tensor
    count: int
    height: int
    hidden: bool


class PathAttention:
    """The attention of one batch: laid out once, applied by every layer.

    Attributes:
        layers: which layers have come here.
    """

    def __init__(self, batch: Batch, storage: KVStorage, device: torch.device) -> None:
        self._storage = storage
        self._slots = torch.tensor(batch.slots, device=device)
        self._positions = torch.tensor(batch.positions, device=device)
        self._groups = [
            _tiles(start, height, pieces, batch, device)
            for (start, height), pieces in sorted(_cut_blocks(batch.key_blocks).items())
        ]
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}
        self.layers: set[int] = set()

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Store this layer's new keys and values, then attend.

        Args:
            query: [heads, N, head_dim]; key, value: [kv_heads, N, head_dim].
            window: a row sees its ``window`` latest positions; None for all.
            softcap: scores become ``softcap * tanh(score / softcap)``.

        Returns:
            [N, heads, head_dim]
        """
        self.layers.add(layer)
        self._storage.write(layer, self._slots, key, value)
        merged = _Merged(query)
        scaled = query.float() * scaling
        for index, tiles in enumerate(self._groups):
            mask = self._mask(index, window)
            merged.add(tiles, self._partial(layer, tiles, scaled, mask, softcap))
        return merged.result().to(query.dtype)

    def _partial(
        self, layer: int, tiles: _Tiles, query: Tensor, mask: Tensor | None, softcap: float | None
    ) -> _Partial:
        keys, values = self._gather(layer, tiles)
        grid = _Grid(keys.shape[0] // tiles.count, query.shape[0], tiles)
        scores = torch.bmm(grid.rows_by_kv_head(query), keys.transpose(1, 2))
        if softcap is not None:
            scores.div_(softcap).tanh_().mul_(softcap)
        if mask is not None:
            grid.unfold(scores).add_(mask)
        peak = scores.amax(-1, keepdim=True).clamp_(min=_NO_KEY_SEEN)
        weights = scores.sub_(peak).exp_()
        total = weights.sum(-1, keepdim=True)
        weighted = torch.bmm(weights, values)
        return _Partial(grid.by_head(peak), grid.by_head(total), grid.by_head(weighted))

    def _gather(self, layer: int, tiles: _Tiles) -> tuple[Tensor, Tensor]:
        """Keys and values of each tile's block: [kv_heads * n, BLOCK_SIZE, head_dim]."""
        stores = self._storage.keys[layer], self._storage.values[layer]
        keys, values = (
            store.index_select(1, tiles.slots).view(-1, BLOCK_SIZE, store.shape[2]).float()
            for store in stores
        )
        return keys, values

    def _mask(self, index: int, window: int | None) -> Tensor | None:
        """[n, 1, T, BLOCK_SIZE], minus infinity where a row does not see a key; None: sees all."""
        if (index, window) not in self._masks:
            self._masks[index, window] = self._build_mask(self._groups[index], window)
        return self._masks[index, window]

    def _build_mask(self, tiles: _Tiles, window: int | None) -> Tensor | None:
        if not tiles.hidden and window is None:
            return None
        rows = self._positions[tiles.rows].view(tiles.count, 1, tiles.height, 1)
        keys = torch.arange(tiles.start, tiles.start + BLOCK_SIZE, device=rows.device)
        hidden = keys > rows
        if window is not None:
            hidden |= keys <= rows - window
        return torch.zeros(hidden.shape, device=rows.device).masked_fill_(hidden, -torch.inf)


@dataclass(frozen=True, slots=True)
class _Partial:
    """A group's result: [heads, n * T, 1], [heads, n * T, 1], [heads, n * T, head_dim]."""

    peak: Tensor
    total: Tensor
    weighted: Tensor

    def rows(self, index: Tensor) -> _Partial:
        return _Partial(
            self.peak.index_select(1, index),
            self.total.index_select(1, index),
            self.weighted.index_select(1, index),
        )


class _Merged:
    """The running softmax of every batch row, over the key blocks seen so far."""

    def __init__(self, query: Tensor) -> None:
        heads, rows, head_dim = query.shape
        self._peak = query.new_full((heads, rows, 1), _NO_KEY_SEEN, dtype=torch.float32)
        self._total = query.new_zeros((heads, rows, 1), dtype=torch.float32)
        self._weighted = query.new_zeros((heads, rows, head_dim), dtype=torch.float32)

    def add(self, tiles: _Tiles, partial: _Partial) -> None:
        """Merge the next block in; each row is in a group once."""
        new = partial.rows(tiles.source)
        if tiles.start == 0:
            # Nothing is there yet, so a merge would multiply it by exactly 1.
            self._put(tiles.target, new)
            return
        old = _Partial(self._peak, self._total, self._weighted).rows(tiles.target)
        peak = torch.maximum(old.peak, new.peak)
        old_scale, new_scale = (old.peak - peak).exp_(), (new.peak - peak).exp_()
        total = old.total * old_scale + new.total * new_scale
        weighted = old.weighted * old_scale + new.weighted * new_scale
        self._put(tiles.target, _Partial(peak, total, weighted))

    def _put(self, rows: Tensor, partial: _Partial) -> None:
        self._peak.index_copy_(1, rows, partial.peak)
        self._total.index_copy_(1, rows, partial.total)
        self._weighted.index_copy_(1, rows, partial.weighted)

    def result(self) -> Tensor:
        """[N, heads, head_dim]"""
        return (self._weighted / self._total).transpose(0, 1).contiguous()


@dataclass(frozen=True, slots=True)
class _Grid:
    """How rows are grouped for the products: kv_heads x n tiles x (heads per kv head x T)."""

    kv_heads: int
    heads: int
    tiles: _Tiles

    def rows_by_kv_head(self, query: Tensor) -> Tensor:
        """[heads, N, head_dim] -> [kv_heads * n, group * T, head_dim]"""
        tiles, group = self.tiles, self.heads // self.kv_heads
        rows = query.index_select(1, tiles.rows)
        grouped = rows.view(self.kv_heads, group, tiles.count, tiles.height, -1).transpose(1, 2)
        return grouped.reshape(self.kv_heads * tiles.count, group * tiles.height, -1)

    def unfold(self, folded: Tensor) -> Tensor:
        """[kv_heads * n, group * T, x] -> [kv_heads, n, group, T, x], a view"""
        group = self.heads // self.kv_heads
        return folded.view(self.kv_heads, self.tiles.count, group, self.tiles.height, -1)

    def by_head(self, folded: Tensor) -> Tensor:
        """[kv_heads * n, group * T, x] -> [heads, n * T, x]"""
        rows = self.tiles.count * self.tiles.height
        return self.unfold(folded).transpose(1, 2).reshape(self.heads, rows, -1)


_Piece = tuple[KeyBlock, range]


def _cut_blocks(blocks: Iterable[KeyBlock]) -> dict[tuple[int, int], list[_Piece]]:
    """Tile-sized pieces of every block's rows, by (block start, tile height)."""
    groups: dict[tuple[int, int], list[_Piece]] = defaultdict(list)
    for block in blocks:
        for rows in _cut_rows(block.rows):
            height = next(height for height in TILE_ROWS if len(rows) <= height)
            groups[block.start, height].append((block, rows))
    return groups


def _cut_rows(rows: range) -> Iterator[range]:
    for first in range(0, len(rows), TILE_ROWS[-1]):
        yield rows[first : first + TILE_ROWS[-1]]


def _tiles(
    start: int, height: int, pieces: list[_Piece], batch: Batch, device: torch.device
) -> _Tiles:
    rows: list[int] = []
    slots: list[int] = []
    source: list[int] = []
    target: list[int] = []
    for block, piece in pieces:
        source += range(len(rows), len(rows) + len(piece))
        target += piece
        rows += [*piece, *[piece[-1]] * (height - len(piece))]
        slots += [*block.slots, *[0] * (BLOCK_SIZE - len(block.slots))]
    last_key = start + BLOCK_SIZE - 1
    return _Tiles(
        start=start,
        count=len(pieces),
        height=height,
        rows=torch.tensor(rows, device=device),
        slots=torch.tensor(slots, device=device),
        source=torch.tensor(source, device=device),
        target=torch.tensor(target, device=device),
        hidden=any(batch.positions[row] < last_key for row in target),
    )
