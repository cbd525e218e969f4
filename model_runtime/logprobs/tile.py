"""A tile of logits, reduced: by torch here, by the native kernels in ``native_tile``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.kernels.rows import read_rows, row_index


@dataclass(frozen=True, slots=True)
class ReducedTile:
    """What is known of M rows of logits.

    Attributes:
        log_sum: [M] log of the sum of exponentials; not finite where a row is not.
        logprobs, ranks: of the ids that were asked of rows, row by row; a rank is 1 and how many
            tokens are more probable.
        entropies: [M] in nats; None where they were not asked.
        top_logits, top_ids: [M, n] the largest, falling, equal ones by id; None where not asked.
    """

    log_sum: Tensor
    logprobs: Sequence[float]
    ranks: Sequence[int]
    entropies: Tensor | None = None
    top_logits: Tensor | None = None
    top_ids: Tensor | None = None


ReduceTile = Callable[[Tensor, Sequence[Sequence[int]], int, bool], ReducedTile]
"""(logits, ids asked of each row, how many largest, whether entropies) -> what is known of them.

[M, vocab] logits; there may be more rows than are asked of. They may be written to.
"""


def reduce_with_torch(
    logits: Tensor, asked: Sequence[Sequence[int]], _top: int, entropies: bool
) -> ReducedTile:
    """A ``ReduceTile`` on any device; the largest are left to whoever wants them.

    The sum of a lone row would be split among threads, so there are two rows at least.
    """
    if logits.shape[0] == 1:
        logits = logits.expand(2, -1)
    log_sum = logits.logsumexp(-1)
    logprobs: list[float] = []
    ranks: list[int] = []
    pairs = [(row, token_id) for row, ids in enumerate(asked) for token_id in ids]
    height = max(1, logits.shape[0])
    for chunk in (pairs[i : i + height] for i in range(0, len(pairs), height)):
        rows = row_index([row for row, _ in chunk], logits.device)
        ids = torch.tensor([token_id for _, token_id in chunk], device=logits.device)
        among = read_rows(logits, rows)
        chosen = among.gather(1, ids.unsqueeze(1))
        logprobs += (chosen.squeeze(1) - read_rows(log_sum, rows)).tolist()
        ranks += (1 + _count_greater(among, chosen).long()).tolist()
    found = _entropies(logits, log_sum) if entropies else None
    return ReducedTile(log_sum, logprobs, ranks, found)


def _count_greater(logits: Tensor, chosen: Tensor) -> Tensor:
    """[G] how many tokens of each row are strictly more probable than its chosen one.

    Ones are added up as float32, which is exact up to 2^24 tokens and fifty times as fast as
    counting booleans.
    """
    return torch.gt(logits, chosen, out=torch.empty_like(logits)).sum(-1)


def _entropies(logits: Tensor, log_sum: Tensor) -> Tensor:
    """[M] - sum p log p of each row, in nats; a token of probability 0 adds nothing."""
    logprobs = logits - log_sum.unsqueeze(1)
    return -(logprobs.exp() * logprobs.clamp_(min=-1e4)).sum(-1)
