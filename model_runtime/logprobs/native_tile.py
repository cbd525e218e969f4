"""A tile of logits, reduced by the native kernels: a row is read once from memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

import torch
from torch import Tensor

from model_runtime.logprobs.tile import ReducedTile
from model_runtime.native.library import run
from model_runtime.native.reduction import reduce_logits


def reduce_natively(
    logits: Tensor,
    asked: Sequence[Sequence[int]],
    top: int,
    entropies: bool,
    *,
    softcap: float | None = None,
) -> ReducedTile:
    """A ``ReduceTile``; before all else logits become ``softcap * tanh(logit / softcap)``."""
    firsts = torch.tensor(list(accumulate(map(len, asked), initial=0)))
    chosen = torch.tensor(list(chain.from_iterable(asked)), dtype=torch.int64)
    operation, reduced = reduce_logits(
        logits, chosen, firsts, top, softcap=softcap, entropies=entropies
    )
    run([operation])
    return ReducedTile(
        log_sum=reduced.log_sum,
        logprobs=reduced.logprobs.tolist(),
        ranks=reduced.ranks.tolist(),
        entropies=reduced.entropies if entropies else None,
        top_logits=reduced.top_logits if top else None,
        top_ids=reduced.top_ids if top else None,
    )
