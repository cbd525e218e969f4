"""Key spans in the shapes that a kernel takes: n spans of F keys against M rows each.

The query heads that share a kv head are folded into the rows, ``folded = row * group + head``,
so a kernel sees one head a kv head, and one row of a batch is ``group`` rows to it.

F is set by a row's position alone: the suffix span of a row is padded to whole steps behind its
cut, a prefix span is whole as it is. M is padded to whole row steps, among which a row's bits do
not depend on the others of its product: see ``attention.row_tiles``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.batching.batch import Batch, KeySpan
from model_runtime.batching.block_sizes import (
    BLOCK_SIZE,
    GATHERED_KEYS,
    KEY_STEP,
    ROW_STEP,
    padded_keys,
    padded_rows,
    suffix_steps,
)
from model_runtime.kernels.rows import RowIndex, row_index

UNSEEN = -1e30
"""Added to a score that a row does not see. Finite, as a prefix span may be unseen as a whole."""


@dataclass(frozen=True, slots=True)
class SpanGroup:
    """Spans of one shape, and the rows that attend to them.

    Attributes:
        count, height, keys: n, M and F.
        is_suffix: rows see the keys at or before their own position; else all of them.
        rows: [n * M] folded rows; padding is any other row, and comes to nothing.
        slots: [n * F] where the keys lie, padded with slot 0.
        real: [m] which of the n * M are no padding.
        target: [m] the folded rows that these are.
        mask: [n, 1, M, F], 0 where a row sees a key; None where all see all.
    """

    count: int
    height: int
    keys: int
    is_suffix: bool
    rows: RowIndex
    slots: RowIndex
    real: RowIndex
    target: RowIndex
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one span, at consecutive places of the batch or not, and the keys they see."""

    start: int
    slots: Sequence[int]
    rows: tuple[range, ...]

    @property
    def count(self) -> int:
        return sum(map(len, self.rows))


def group_spans(
    batch: Batch,
    group: int,
    window: int | None,
    device: torch.device,
    row_step: int = ROW_STEP,
) -> list[SpanGroup]:
    """Every span of a batch, first those of suffixes; a row is in one, and in one prefix at most.

    Args:
        group: query heads a kv head.
        window: a row sees its ``window`` latest positions; None for all.
        row_step: M is a multiple of it.
    """
    suffixes = (p for span in batch.suffix_spans for p in _suffix_pieces(span, batch.positions))
    prefixes = (_within(span, window) for span in batch.prefix_spans)
    build = _Builder(batch.positions, group, window, device, row_step)
    return [
        *(build.spans(pieces, is_suffix=True) for pieces in build.of_one_shape(suffixes)),
        *(build.spans(pieces, is_suffix=False) for pieces in build.of_one_shape(prefixes)),
    ]


def _suffix_pieces(span: KeySpan, positions: Sequence[int]) -> Iterator[_Piece]:
    for keys, rows in suffix_steps(span, positions):
        yield _Piece(span.start, span.slots[:keys], (rows,))


def _within(span: KeySpan, window: int | None) -> _Piece:
    """A prefix span from the first step on that the first position behind it could see."""
    cut = len(span.slots)
    first = 0 if window is None else max(0, cut + BLOCK_SIZE - window + 1) // KEY_STEP * KEY_STEP
    return _Piece(first, span.slots[first:], span.rows)


def _repeat(folded: list[int], height: int) -> list[int]:
    return folded + folded[-1:] * (height - len(folded))


@dataclass(frozen=True, slots=True)
class _Builder:
    positions: Sequence[int]
    group: int
    window: int | None
    device: torch.device
    row_step: int

    def of_one_shape(self, pieces: Iterator[_Piece]) -> Iterator[list[_Piece]]:
        """Pieces of one shape together, as many as may be gathered at once."""
        shapes: dict[tuple[int, int], list[_Piece]] = defaultdict(list)
        for piece in pieces:
            if piece.slots:
                shapes[padded_keys(len(piece.slots)), self._height(piece)].append(piece)
        for (keys, _), alike in sorted(shapes.items()):
            most = max(1, GATHERED_KEYS // keys)
            yield from (alike[i : i + most] for i in range(0, len(alike), most))

    def spans(self, pieces: list[_Piece], *, is_suffix: bool) -> SpanGroup:
        keys = padded_keys(len(pieces[0].slots))
        rows: list[int] = []
        slots: list[int] = []
        real: list[int] = []
        target: list[int] = []
        reach: list[int] = []
        height = self._height(pieces[0])
        for piece in pieces:
            folded = self._fold(piece)
            filled = self._fill(folded, height) if len(pieces) == 1 else _repeat(folded, height)
            lead = filled.index(folded[0])
            real += range(len(rows) + lead, len(rows) + lead + len(folded))
            target += folded
            rows += filled
            slots += [*piece.slots, *[0] * (keys - len(piece.slots))]
            reach += [self.positions[row // self.group] - piece.start for row in filled]
        return SpanGroup(
            count=len(pieces),
            height=height,
            keys=keys,
            is_suffix=is_suffix,
            rows=row_index(rows, self.device),
            slots=row_index(slots, self.device),
            real=row_index(real, self.device),
            target=row_index(target, self.device),
            mask=self._mask(reach, len(pieces), keys) if is_suffix or self.window else None,
        )

    def _height(self, piece: _Piece) -> int:
        return padded_rows(self.group * piece.count, self.row_step)

    def _fold(self, piece: _Piece) -> list[int]:
        heads = range(self.group)
        return [row * self.group + head for part in piece.rows for row in part for head in heads]

    def _fill(self, folded: list[int], height: int) -> list[int]:
        """A lone span of adjacent rows is padded with the rows beside it, so nothing is copied."""
        every = len(self.positions) * self.group
        if every < height or folded[-1] - folded[0] >= len(folded):
            return _repeat(folded, height)
        first = min(folded[0], every - height)
        return list(range(first, first + height))

    def _mask(self, reach: list[int], count: int, keys: int) -> Tensor:
        last = torch.tensor(reach, device=self.device).view(count, 1, -1, 1)
        key = torch.arange(keys, device=self.device)
        unseen = key > last
        if self.window is not None:
            unseen |= key <= last - self.window
        return torch.zeros(unseen.shape, device=self.device).masked_fill_(unseen, UNSEEN)
