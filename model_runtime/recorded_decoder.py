"""Small batches through recordings: a decoder's Python runs for the first few of a size only.

The first batch of a number of rows runs as always, the second is recorded, and the third runs
both ways: a recording is used only after it has given the same bits for other tokens. A decoder
that cannot be recorded runs as always.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from model_runtime.attention.interface import Attention
from model_runtime.recording import Decode, NotRecordable, record
from model_runtime.replay import Operator, Replay

RECORDED_ROWS = 128
"""Rows of a batch at most; with more, what is recorded away is a small part of the time."""

logger = logging.getLogger(__name__)


class RecordedDecoder:
    """A decoder, recorded for each number of rows that comes more than once.

    Args:
        decode: the decoder as it is.
        instead: see ``recording.record``.
    """

    def __init__(self, decode: Decode, instead: Mapping[Operator, Operator]) -> None:
        self._decode = decode
        self._instead = instead
        self._seen: set[int] = set()
        self._untried: dict[int, Replay] = {}
        self._replays: dict[int, Replay] = {}
        self._recordable = True

    def __call__(self, token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """[N, hidden_size] final hidden states."""
        rows = token_ids.shape[1]
        replay = self._replays.get(rows)
        if replay is not None:
            hidden: Tensor = replay(token_ids, positions, attention)
            return hidden
        if not self._recordable or rows > RECORDED_ROWS:
            return self._decode(token_ids, positions, attention)
        if rows not in self._seen:
            self._seen.add(rows)
            return self._decode(token_ids, positions, attention)
        if rows in self._untried:
            return self._try(rows, token_ids, positions, attention)
        return self._record(rows, token_ids, positions, attention)

    def _record(
        self, rows: int, token_ids: Tensor, positions: Tensor, attention: Attention
    ) -> Tensor:
        try:
            replay, hidden = record(self._decode, token_ids, positions, attention, self._instead)
        except NotRecordable as error:
            self._give_up(str(error))
            attention.layers.clear()
            return self._decode(token_ids, positions, attention)
        self._untried[rows] = replay
        return hidden

    def _try(self, rows: int, token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        hidden = self._decode(token_ids, positions, attention)
        replay = self._untried.pop(rows)
        if torch.equal(replay(token_ids, positions, attention), hidden):
            self._replays[rows] = replay
        else:
            self._give_up("a recording gave other bits for other tokens")
        return hidden

    def _give_up(self, reason: str) -> None:
        self._recordable = False
        self._untried.clear()
        self._replays.clear()
        logger.warning("small batches run without recordings: %s", reason)
