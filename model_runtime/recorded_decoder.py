"""Small batches through recordings: a decoder's Python runs for the first of a size only.

The first batch of a number of rows runs as always, and the second is written down. Before a
recording answers anything it is tried on other tokens and positions, beside the decoder itself,
and with an attention that touches no cache: it must give the same bits. A decoder that cannot
be recorded runs as always.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from model_runtime.attention.interface import Attention
from model_runtime.recording import Decode, record
from model_runtime.replay import Operator, Replay

RECORDED_ROWS = 128
"""Rows of a batch at most; with more, what is recorded away is a small part of the time."""

RECORDINGS = 48
"""Kept at most, the least recently used first out; each takes about a megabyte."""

logger = logging.getLogger(__name__)


class RecordedDecoder:
    """A decoder, recorded for each number of rows that comes more than once.

    Args:
        decode: the decoder as it is. Its weights stay the tensors that they are.
        instead: see ``recording.record``.
        vocab_size, max_positions: bound the tokens and positions that recordings are tried on.
    """

    def __init__(
        self,
        decode: Decode,
        instead: Mapping[Operator, Operator],
        vocab_size: int,
        max_positions: int,
    ) -> None:
        self._decode = decode
        self._instead = instead
        self._bounds = vocab_size, max_positions
        self._seen: set[int] = set()
        self._untried: dict[int, Replay] = {}
        self._replays: OrderedDict[int, Replay] = OrderedDict()
        self._recordable = True

    def __call__(self, token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """[N, hidden_size] final hidden states."""
        rows = token_ids.shape[1]
        if rows in self._untried:
            self._try(rows)
        replay = self._replays.get(rows)
        if replay is not None:
            self._replays.move_to_end(rows)
            hidden: Tensor = replay(token_ids, positions, attention)
            return hidden
        if not self._recordable or rows > RECORDED_ROWS or rows not in self._seen:
            self._seen.add(rows)
            return self._decode(token_ids, positions, attention)
        return self._record(rows, token_ids, positions, attention)

    def _record(
        self, rows: int, token_ids: Tensor, positions: Tensor, attention: Attention
    ) -> Tensor:
        try:
            recorded = record(self._decode, token_ids, positions, attention, self._instead)
        except Exception as error:
            # If it is the decoder's own, it comes again.
            self._give_up(logging.INFO, f"recording failed with {error!r}")
            attention.layers.clear()
            return self._decode(token_ids, positions, attention)
        if recorded.replay is None:
            self._give_up(logging.INFO, str(recorded.reason))
        else:
            self._untried[rows] = recorded.replay
        return recorded.hidden

    def _try(self, rows: int) -> None:
        """Accept a recording, or give up; nothing of it reaches a cache."""
        replay = self._untried.pop(rows)
        generator = torch.Generator().manual_seed(rows)
        token_ids, positions = (
            torch.randint(bound, (1, rows), generator=generator) for bound in self._bounds
        )
        try:
            hidden = self._decode(token_ids, positions, _TrialAttention())
            tried = replay(token_ids, positions, _TrialAttention())
        except Exception as error:
            self._give_up(logging.WARNING, f"a recording failed with {error!r}")
            return
        if not _same_bits(tried, hidden):
            self._give_up(logging.WARNING, "a recording gave other bits for other tokens")
            return
        self._replays[rows] = replay
        if len(self._replays) > RECORDINGS:
            self._replays.popitem(last=False)

    def _give_up(self, level: int, reason: str) -> None:
        self._recordable = False
        self._untried.clear()
        self._replays.clear()
        logger.log(level, "small batches run the model's own code, which is slower: %s", reason)


class _TrialAttention:
    """In place of attention: something of every query, key and value, and no cache."""

    def __init__(self) -> None:
        self.layers: set[int] = set()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *_: object) -> Tensor:
        """[N, heads, head_dim] of the sizes that attention has."""
        self.layers.add(layer)
        return (query + (key - value).mean(0)).tanh_().transpose(0, 1).contiguous()


def _same_bits(one: Tensor, other: Tensor) -> bool:
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and torch.equal(
        one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)
    )
